from dataclasses import dataclass

from rivals import wire
from rivals.protocols import Arrays, JsonHttp, RawHttp, Request, Work, without_prefix
from rivals.rival import Rival, Start, run_script

from rival_work import bodies  # isort: skip  (protocols has made it importable)


@dataclass(frozen=True)
class Grpc:
    """A call with one BytesValue each way: the tensors' bytes."""

    grpc = True
    title: str = "gRPC, raw bytes"
    path: str = "/rivals.Work/Infer"

    def encode(self, work: Work, arrays: Arrays) -> Request:
        message = wire.text(1, bodies.to_raw(arrays))
        return Request(self.path, b"\0" + len(message).to_bytes(4, "big") + message)

    def decode(self, work: Work, body: bytes) -> Arrays:
        return bodies.from_raw(work.outputs, bytes(dict(wire.fields(without_prefix(body)))[1]))


def _env(start: Start) -> dict[str, str]:
    return {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_AUTH_MODE": "disabled",  # one node, on the loopback interface
        "RAY_raylet_start_wait_time_s": "120",
        "RAY_TMPDIR": "/tmp",
    }


RIVALS = [
    Rival(
        "ray",
        "Ray Serve",
        "ray",
        "ray",
        {"raw": RawHttp("/raw"), "grpc": Grpc(), "json": JsonHttp("/json")},
        (
            "one proxy and one replica on one node, `RAY_SERVE_THROUGHPUT_OPTIMIZED=1`, as its guide advises for "
            "throughput; no dashboard, `max_ongoing_requests` 512",
            "`serve.batch` up to the model's batch with `batch_wait_timeout_s` 1 ms",
            "raw bytes and JSON by Starlette; over gRPC one message of bytes each way",
            "pipeline: a deployment for each stage",
        ),
        lambda start: run_script(start, "ray"),
        _env,
        start_seconds=12,
    )
]
