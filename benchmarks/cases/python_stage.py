"""What an empty Python stage costs: processor time of a method with one, less that of the same method without."""

from collections.abc import Callable
from pathlib import Path

from cases.serving import TARGET, sum_instances
from harness import load, messages
from harness.case import FigureCase, Target
from harness.targets import ServingTarget

BATCH = 32  # of the model: one request's instances are one run

GetTarget = Callable[[str], Target]


def _added_cpu(get_target: GetTarget, with_stage: str, rows: int, seconds: int, scratch: Path) -> Callable[[], float]:
    """CPU µs that `with_stage` adds to `predict` for each row, one request of `rows` instances in flight."""
    instances, expected = sum_instances(rows)
    prepared: dict[str, load.Load] = {}

    def cpu_us(target: ServingTarget, method: str) -> float:
        if method not in prepared:
            message = messages.predict_message("addb", method, instances)
            reply_bytes = messages.checked_grpc(target.grpc_address, message, expected)
            prepared[method] = load.Load(messages.GRPC_PATH, messages.grpc_body(message), reply_bytes, load.Shape(1))
            load.run(prepared[method], target.grpc_address, 1, scratch)  # warm-up, not counted
        before = target.run_seconds()
        measured = load.run(prepared[method], target.grpc_address, 1, scratch)
        return (target.run_seconds() - before) / measured.requests * 1e6

    def measure() -> float:
        target = get_target(TARGET)
        assert isinstance(target, ServingTarget)
        costs: dict[str, list[float]] = {"predict": [], with_stage: []}
        for _ in range(
            seconds
        ):  # in turns; a slow moment of the machine is in the dearest of each, which does not count
            for method, found in costs.items():
                found.append(cpu_us(target, method))
        return (min(costs[with_stage]) - min(costs["predict"])) / rows

    return measure


def cases(get_target: GetTarget, seconds: int, scratch: Path) -> list[FigureCase]:
    def added(method: str, rows: int) -> Callable[[], float]:
        return _added_cpu(get_target, method, rows, seconds, scratch)

    return [
        FigureCase("stage-1", "an empty Python stage, 1 instance a request, 1x1", "µs CPU more a request",
                   added("predict_empty", 1), goal="≤ 30"),
        FigureCase("stage-32", "an empty Python stage, 32 instances, 1x1", "µs CPU more a row",
                   added("predict_empty", BATCH), goal="≤ 3"),
        FigureCase("stage-32-three", "three empty Python stages in a row, 32 instances, 1x1", "µs CPU more a row",
                   added("predict_three", BATCH)),
        FigureCase("stage-32-stack", "an empty Python stage with stacked arrays, 32 instances, 1x1",
                   "µs CPU more a row", added("predict_stacked", BATCH)),
    ]  # fmt: skip
