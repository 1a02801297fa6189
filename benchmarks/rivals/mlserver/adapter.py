import json

from rivals.protocols import V2Grpc, V2Json
from rivals.rival import FOLDER, Rival, Start
from servers import free_port

from rival_work.works import WORKS  # isort: skip  (protocols has made it importable)


def _command(start: Start) -> list[str]:
    settings = {
        "host": "127.0.0.1", "http_port": start.http_port, "grpc_port": start.grpc_port, "metrics_endpoint": None,
        "metrics_port": free_port(), "parallel_workers": 0, "debug": False, "grpc_max_message_length": 64 << 20,
        "gzip_enabled": False,
    }  # fmt: skip
    model: dict[str, object] = {"name": start.work, "implementation": "rival_runtime.Runtime"}
    if WORKS[start.work].max_batch > 1:
        model |= {"max_batch_size": WORKS[start.work].max_batch, "max_batch_time": 0.001}
    (start.scratch / "settings.json").write_text(json.dumps(settings))
    (start.scratch / "model-settings.json").write_text(json.dumps(model))
    (start.scratch / "rival_runtime.py").write_text((FOLDER / "mlserver" / "rival_runtime.py").read_text())
    return [str(start.python.parent / "mlserver"), "start", str(start.scratch)]


RIVALS = [
    Rival(
        "mlserver",
        "MLServer",
        "mlserver",
        "mlserver",
        {"grpc": V2Grpc(), "json": V2Json()},
        (
            "a custom runtime; `parallel_workers` 0, which answers in the server's process and saves the hand-over to "
            "another one on the same core; no metrics, no debug log, no gzip",
            "adaptive batching up to the model's batch, `max_batch_time` 1 ms",
            "pipeline: the three stages in one `predict`",
        ),
        _command,
        start_seconds=4,
    )
]
