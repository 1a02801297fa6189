from rivals.protocols import V2Grpc, V2Json
from rivals.rival import Rival, run_script

RIVALS = [
    Rival(
        "kserve",
        "KServe's Python server",
        "kserve",
        "kserve",
        {"grpc": V2Grpc(), "json": V2Json()},
        (
            "a custom model in one process (`workers=1`), uvloop, no latency log",
            "no dynamic batching: KServe's batcher is a container in front of this server, not in its package",
            "pipeline: the three stages in one `predict`",
        ),
        lambda start: run_script(start, "kserve"),
        start_seconds=4,
    )
]
