"""Cases against the serving server: the rows of the budget."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness import messages
from harness.case import LoadCase, Target
from harness.load import Load, Shape, load_generator

TARGET = "serving"
IN_FLIGHT_64 = Shape(64)
BIG_SHAPE = (512, 1024)  # float32: 2 MiB
BIG_MB = 6 * 2**20 / 1e6  # two inputs and the output
TOTAL_SHAPE = (1024, 1024)

Instances = list[messages.Instance]
Data = tuple[Instances, Instances]  # what is sent, what must come back


def sum_instances(count: int, dtype: type = np.float32, shape: tuple[int, ...] = (2, 2)) -> Data:
    """Instances of two tensors to add, and their sums."""
    random = np.random.default_rng(1)
    inputs = [{name: random.integers(0, 100, shape).astype(dtype) for name in ("x1", "x2")} for _ in range(count)]
    return inputs, [{"y": (one["x1"] + one["x2"]).astype(np.float32)} for one in inputs]


def grpc_load(
    servable: str, method: str, shape: Shape, data: Data, polled_by: Path | None = None
) -> Callable[[Target], Load]:
    def prepare(target: Target) -> Load:
        message = messages.predict_message(servable, method, data[0])
        reply_bytes = messages.checked_grpc(target.grpc_address, message, data[1])
        return Load(messages.GRPC_PATH, messages.grpc_body(message), reply_bytes, shape, polled_by=polled_by)

    return prepare


def _rest(servable: str, method: str, shape: Shape, data: Data) -> Callable[[Target], Load]:
    def prepare(target: Target) -> Load:
        path, body = f"/model/{servable}:{method}", messages.rest_body(data[0])
        reply_bytes = messages.checked_rest(target.rest_address, path, body, data[1])
        return Load(path, body, reply_bytes, shape, rest=True)

    return prepare


def _total_json(target: Target) -> Load:
    """About 21 MB of JSON: numbers with as many digits as a double has."""
    x = np.random.default_rng(1).random(TOTAL_SHAPE)
    expected = [{"y": np.full((1, 1), x.sum(), np.float32)}]
    return _rest("total", "predict", Shape(1), ([{"x": x}], expected))(target)


def cases(build: Path) -> list[LoadCase]:
    one, one_int, sixteen = sum_instances(1), sum_instances(1, np.int32), sum_instances(16)
    big = sum_instances(1, shape=BIG_SHAPE)

    def grpc(
        servable: str, shape: Shape, data: Data = one, method: str = "predict", polled_by: Path | None = None
    ) -> Callable[[Target], Load]:
        return grpc_load(servable, method, shape, data, polled_by)

    return [
        LoadCase("addb-64x1", "addb, gRPC 64x1", TARGET, grpc("addb", IN_FLIGHT_64), against="bare-64x1",
                 goal="≤ 25 µs CPU, ≥ 60 % rate"),
        LoadCase("addb-8x16", "addb, gRPC 8x16", TARGET, grpc("addb", Shape(8, 16)), against="bare-8x16",
                 goal="≤ 10 µs CPU"),
        LoadCase("add-64x1", "add (no batch), gRPC 64x1", TARGET, grpc("add", IN_FLIGHT_64), against="executor-add",
                 goal="≥ 80 %"),
        LoadCase("add-1x1", "add, one connection", TARGET, grpc("add", Shape(1), polled_by=load_generator(build)),
                 against="session-add", goal="p50: model + 60 µs"),
        LoadCase("add-asleep-1x1", "add, one connection, a client that sleeps", TARGET, grpc("add", Shape(1)),
                 against="session-add"),
        LoadCase("addb-rest", "addb, REST 64x1", TARGET, _rest("addb", "predict", IN_FLIGHT_64, one),
                 against="addb-64x1", goal="≥ 75 % rate"),
        LoadCase("add-rest", "add, REST 64x1", TARGET, _rest("add", "predict", IN_FLIGHT_64, one),
                 against="add-64x1", goal="≥ 75 % rate"),
        LoadCase("cast", "cast in Python, then addb, 64x1", TARGET,
                 grpc("addb", IN_FLIGHT_64, one_int, "predict_cast"), against="addb-64x1"),
        LoadCase("addb-16i", "addb, 16 instances a request, 16x1", TARGET, grpc("addb", Shape(16), sixteen),
                 units=16, unit="instances/s", against="session-addb"),
        LoadCase("add-16i", "add, 16 instances a request, 16x1", TARGET, grpc("add", Shape(16), sixteen),
                 units=16, unit="instances/s", against="executor-add", goal="≥ 80 %"),
        LoadCase("addb-16i-8x16", "addb, 16 instances a request, 8x16", TARGET, grpc("addb", Shape(8, 16), sixteen),
                 units=16, unit="instances/s", against="session-addb"),
        LoadCase("add-16i-8x16", "add, 16 instances a request, 8x16", TARGET, grpc("add", Shape(8, 16), sixteen),
                 units=16, unit="instances/s", against="session-add"),
        LoadCase("big-c1", "4 MiB in, 2 MiB out, gRPC 1x1", TARGET, grpc("big", Shape(1), big),
                 units=BIG_MB, unit="MB/s"),
        LoadCase("big-c4", "4 MiB in, 2 MiB out, gRPC 4x1", TARGET, grpc("big", Shape(4), big),
                 units=BIG_MB, unit="MB/s"),
        LoadCase("json-21mb", "21 MB of JSON numbers, REST 1x1", TARGET, _total_json, goal="p50 ≤ 150,000 µs"),
    ]  # fmt: skip
