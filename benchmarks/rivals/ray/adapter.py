from rivals.protocols import JsonHttp, RawHttp
from rivals.rival import Rival, Start, run_script


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
        {"raw": RawHttp("/raw"), "json": JsonHttp("/json")},
        (
            "one proxy and one replica on one node, `RAY_SERVE_THROUGHPUT_OPTIMIZED=1`, as its guide advises for "
            "throughput; no dashboard, `max_ongoing_requests` 512",
            "`serve.batch` up to the model's batch with `batch_wait_timeout_s` 1 ms",
            "raw bytes and JSON by Starlette. Its gRPC proxy wants generated servicers and was not set up.",
            "pipeline: a deployment for each stage",
        ),
        lambda start: run_script(start, "ray"),
        _env,
        start_seconds=12,
    )
]
