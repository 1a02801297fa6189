"""What extra workers do for a method whose Python stage takes most of its time: `heavy` with one worker, with one more,
and with three more. Server and workers use all cores, so the load generator takes its share of one."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from cases.serving import grpc_load, sum_instances
from harness.case import LoadCase, Target
from harness.load import Shape
from harness.targets import ServingTarget

WORKERS = (1, 2, 4)


def targets(script: Path, work: Path, env: dict[str, str]) -> dict[str, Callable[[], AbstractContextManager[Target]]]:
    """Makers of the servers, by the target's name."""

    def make(workers: int) -> Callable[[], AbstractContextManager[Target]]:
        own = {**env, "BENCH_SERVABLES": "heavy", "BENCH_PARALLEL_WORKERS": str(workers)}
        return lambda: ServingTarget(script, work, own, pinned=False)

    return {f"heavy-{workers}": make(workers) for workers in WORKERS}


def cases() -> list[LoadCase]:
    instances, expected = sum_instances(1)
    return [
        LoadCase(
            f"heavy-{workers}",
            f"2 ms of Python, then addb, {workers} worker{'s' if workers > 1 else ''}, 16x1",
            f"heavy-{workers}",
            grpc_load("heavy", "predict", Shape(16), (instances, expected)),
            against="" if workers == WORKERS[0] else f"heavy-{WORKERS[0]}",
            goal="" if workers == WORKERS[0] else "more requests/s, CPU + 10 %",
        )
        for workers in WORKERS
    ]
