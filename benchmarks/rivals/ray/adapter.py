import tempfile
from dataclasses import dataclass
from pathlib import Path

from rivals import wire
from rivals.protocols import Arrays, JsonHttp, RawHttp, Request, Work, without_prefix
from rivals.rival import Rival, Start, run_script
from servers import free_port

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


def _proxy_folder(start: Start) -> Path:
    return Path(tempfile.gettempdir(), f"rivals-haproxy-{start.http_port}")  # short, as it has a Unix socket


def _env(start: Start) -> dict[str, str]:
    folder = _proxy_folder(start)
    return {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        # Its processes start on one core, one after the other.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
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
            "one replica on one node, `RAY_SERVE_THROUGHPUT_OPTIMIZED=1` and `RAY_SERVE_ENABLE_HA_PROXY=1`, as its "
            "guide advises for throughput (HAProxy takes a tenth of the processor time of its Python proxy); one "
            "thread for HAProxy, no dashboard, `max_ongoing_requests` 512",
            "`serve.batch` up to the model's batch with `batch_wait_timeout_s` 1 ms",
            "raw bytes and JSON by Starlette; over gRPC one message of bytes each way",
            "pipeline: the three stages in one deployment; one for each stage would cost more, as they share one core",
        ),
        lambda start: run_script(start, "ray"),
        _env,
        ends_slowly=True,
        leaves=lambda start: [_proxy_folder(start)],
        start_seconds=24,
    )
]
