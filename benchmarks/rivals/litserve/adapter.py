from rivals.protocols import JsonHttp, RawHttp
from rivals.rival import Rival, run_script

RIVALS = [
    Rival(
        "litserve",
        "LitServe",
        "litserve",
        "litserve",
        {"raw": RawHttp("/raw"), "json": JsonHttp("/json")},
        (
            "one API server and one inference worker (the server has one core), one route a start, as the batching "
            "loop of an idle route polls; `fast_queue=True`, uvloop and httptools, no access log",
            "dynamic batching up to the model's batch with `batch_timeout` 1 ms",
            "raw bytes as a FastAPI body of bytes; JSON by its default. It has no gRPC.",
            "pipeline: the three stages in one `predict`",
        ),
        lambda start: run_script(start, "litserve"),
        start_each_protocol=True,
        start_seconds=4,
    )
]
