from rivals.protocols import JsonHttp, RawHttp
from rivals.rival import Rival, Start, run_script


def _command(start: Start) -> list[str]:
    options = ["--address", "127.0.0.1", "--port", str(start.http_port), "--log-level", "warning"]
    return run_script(start, "mosec", *options, "--max-request-size", str(64 << 20))


RIVALS = [
    Rival(
        "mosec",
        "mosec",
        "mosec",
        "mosec",
        {"raw": RawHttp("/raw"), "json": JsonHttp("/json")},
        (
            "one worker process a route (the server has one core), dynamic batching up to the model's batch with a "
            "wait of at most 1 ms, the shortest that it takes (its default is 10 ms)",
            "raw bytes by a `deserialize` of the user's, as its guide advises; JSON by the standard library",
            "pipeline: the three stages in one worker; one for each stage would cost more, as they share one core",
        ),
        _command,
        start_seconds=2,
    )
]
