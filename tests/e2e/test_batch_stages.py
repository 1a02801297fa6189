"""Stages that work on many instances: stacked arrays, several in a row, and models that wait for a full batch."""

import shutil

import numpy as np
import pytest

from mindspore_serving.client import Client
from mindspore_serving.proto import ms_service_pb2 as pb
from mindspore_serving.proto import ms_service_pb2_grpc
from servables import make_script, make_servable
from servers import ServerProcess

# wideb: batches of 4, rows of 100 x 200 float32 (80,000 bytes). addb: batches of 4, rows of 2 x 2.
CONFIG = """
import numpy as np
from mindspore_serving.server import register
from mindspore_serving.server.register import _calls

wide_model = register.declare_model("wideb.mindir", "MindIR")
waiting_model = register.declare_model("addb.mindir", "MindIR", max_batch_wait_ms=10000)
seen = {}


def mark(x):
    seen["first"] = x
    x += 1
    return np.full(len(x), x.flags.owndata)


def check(x, owned):
    shared = np.full(len(x), np.shares_memory(seen.pop("first"), x))
    return shared, x[:, 0, 0], np.full(len(x), len(x)), owned


def widen(x):
    return np.broadcast_to(x[:, None], (len(x), 100, 100))


@register.register_method(output_names=["shared", "first", "rows", "owned"])
def from_request(x):
    owned = register.add_stage(mark, x, outputs_count=1, batch_size=4, stack=True)
    return register.add_stage(check, x, owned, outputs_count=4, batch_size=4, stack=True)


@register.register_method(output_names=["shared", "first", "rows", "owned"])
def from_model(x):
    y = register.add_stage(wide_model, x, x, outputs_count=1)
    owned = register.add_stage(mark, y, outputs_count=1, batch_size=4, stack=True)
    return register.add_stage(check, y, owned, outputs_count=4, batch_size=4, stack=True)


@register.register_method(output_names=["shared", "first", "rows", "owned"])
def from_function(x):
    y = register.add_stage(widen, x, outputs_count=1, batch_size=4, stack=True)
    owned = register.add_stage(mark, y, outputs_count=1, batch_size=4, stack=True)
    return register.add_stage(check, y, owned, outputs_count=4, batch_size=4, stack=True)


def square_root(x, name):
    if (x < 0).any():
        raise ValueError("negative")
    return np.sqrt(x), [text.upper() for text in name]


@register.register_method(output_names=["y", "name"])
def roots(x, name):
    return register.add_stage(square_root, x, name, outputs_count=2, batch_size=16, stack=True)


def one(x):
    return x + 1


def two(x):
    return x * 2


def three(instances):
    for (x,) in instances:
        yield x - 3


@register.register_method(output_names=["y"])
def chain(x):
    y = register.add_stage(one, x, outputs_count=1)
    y = register.add_stage(two, y, outputs_count=1)
    return register.add_stage(three, y, outputs_count=1, batch_size=64)


@register.register_method(output_names=["y"])
def waiting_add(x1, x2):
    return register.add_stage(waiting_model, x1, x2, outputs_count=1)


def worker_stats(x):
    stats = _calls.running("a test")._worker.stats()
    waiting = [stage for stage in stats["stages"] if stage["name"].startswith("model 1 ")][0]
    return stats["python_calls"], waiting["runs"], waiting["releases"]["full"], waiting["releases"]["waited"]


@register.register_method(output_names=["python_calls", "runs", "full", "waited"])
def numbers(x):
    return register.add_stage(worker_stats, x, outputs_count=4)
"""

# The same model, which waits for less time than a client does.
SHORT_CONFIG = CONFIG.replace("max_batch_wait_ms=10000", "max_batch_wait_ms=300")


# Nobody goes on before four are there.
SIDE_CONFIG = """
import threading
from mindspore_serving.server import register

model = register.declare_servable("addb.mindir", "MindIR")
four = threading.Barrier(4)


@register.register_pipeline("y", concurrency=4)
def together(x):
    four.wait(60)
    return model.call(x, x)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory, models):
    folder = tmp_path_factory.mktemp("batch_stages")
    for name, config in (("rows", CONFIG), ("short", SHORT_CONFIG)):
        servable = make_servable(folder, name, config, {1: models / "wideb.mindir"})
        shutil.copy(models / "addb.mindir", servable / "1")
    make_servable(folder, "side", SIDE_CONFIG, {1: models / "addb.mindir"})
    with ServerProcess(make_script(folder, ['"rows"', '"short"', '"side"'])) as server:
        yield server


def call(server, method, instances, servable="rows"):
    return Client(server.grpc_address, servable, method).infer(instances)


def numbers(server, servable="rows"):
    (answer,) = call(server, "numbers", [{"x": np.float32(0)}], servable)
    return {name: int(value) for name, value in answer.items()}


@pytest.mark.parametrize(
    ("method", "instances", "first"),
    [
        ("from_request", [np.full((100, 200), i, np.float32) for i in range(4)], [1, 2, 3, 4]),
        ("from_model", [np.full((100, 200), i, np.float32) for i in range(4)], [1, 3, 5, 7]),
        ("from_function", [np.float32(i) for i in range(4)], [1, 2, 3, 4]),
    ],
)
def test_LargeRowsSideBySide_AreOneViewInEveryStage(server, method, instances, first):
    answers = call(server, method, [{"x": x} for x in instances])
    assert [int(answer["rows"]) for answer in answers] == [4] * 4
    assert not any(bool(answer["owned"]) for answer in answers)
    assert all(bool(answer["shared"]) for answer in answers)
    assert [float(answer["first"]) for answer in answers] == first  # what `mark` added in place is there


def test_SmallRows_AreCopiedOnceAndWrittenBack(server):
    answers = call(server, "from_request", [{"x": np.full((2, 2), i, np.float32)} for i in range(4)])
    assert [float(answer["first"]) for answer in answers] == [1, 2, 3, 4]
    assert all(bool(answer["owned"]) for answer in answers)


def test_StackedFunctionThatRaises_FailsTheInstanceToBlame(server):
    instances = [{"x": np.full(3, x, np.float32), "name": f"n{x}"} for x in (4, -1, 9)]
    answers = call(server, "roots", instances)
    assert (answers[0]["y"].tolist(), answers[0]["name"]) == ([2, 2, 2], "N4")
    assert (answers[2]["y"].tolist(), answers[2]["name"]) == ([3, 3, 3], "N9")
    assert answers[1]["error"].startswith(
        "Call Function 'rows.square_root' Failed, method 'roots', stage 1: ValueError: negative "
        "(rows/servable_config.py:"
    )
    assert answers[1]["error"].endswith(", function square_root), instance 1")


def test_FailedStageOfAddStage_IsErrorCode3(server):
    request = pb.PredictRequest(servable_spec=pb.ServableSpec(name="rows", method_name="roots"))
    for x in (4, -1):
        instance = request.instances.add()
        instance.items["x"].CopyFrom(pb.Tensor(dtype=pb.MS_FLOAT32, data=np.float32(x).tobytes()))
        instance.items["name"].CopyFrom(pb.Tensor(dtype=pb.MS_STRING, bytes_val=[b"n"]))
    with Client(server.grpc_address, "rows", "roots").channel as channel:
        reply = ms_service_pb2_grpc.MSServiceStub(channel).Predict(request)
    assert [error.error_code for error in reply.error_msg] == [0, 3]


def test_SameFailureOfEveryInstance_IsOneError(server):
    bad = {"x": np.float32(-1), "name": "n"}
    answer = call(server, "roots", [bad, bad])
    assert isinstance(answer, dict) and answer["error"].endswith(", function square_root)")


def test_ThreePythonStagesInARow_TakeTheInterpreterOnce(server):
    before = numbers(server)["python_calls"]
    answers = call(server, "chain", [{"x": np.float32(i)} for i in range(40)])
    assert [float(answer["y"]) for answer in answers] == [2 * (i + 1) - 3 for i in range(40)]
    # One for the chain of the whole request, one for the second look itself.
    assert numbers(server)["python_calls"] - before == 2


def test_ModelThatWaits_RunsFullBatches(server):
    before = numbers(server)
    client = Client(server.grpc_address, "rows", "waiting_add")
    x = np.ones((2, 2), np.float32)
    calls = [client.infer_async({"x1": x * i, "x2": x}) for i in range(8)]
    for i, one in enumerate(calls):
        np.testing.assert_array_equal(one.result()[0]["y"], x * (i + 1))
    after = numbers(server)
    assert (after["runs"] - before["runs"], after["full"] - before["full"]) == (2, 2)
    assert after["waited"] == before["waited"]


def test_ModelThatWaits_DoesSoNoLongerThanItIsTold(server):
    before = numbers(server, "short")
    x = np.ones((2, 2), np.float32)
    (answer,) = call(server, "waiting_add", [{"x1": x, "x2": x}], "short")
    np.testing.assert_array_equal(answer["y"], 2 * x)
    after = numbers(server, "short")
    assert (after["waited"] - before["waited"], after["full"] - before["full"]) == (1, 0)


def test_PipelinesSideBySide(server):
    answers = call(server, "together", [{"x": np.full((2, 2), i, np.float32)} for i in range(8)], "side")
    for i, answer in enumerate(answers):
        np.testing.assert_array_equal(answer["y"], np.full((2, 2), 2 * i, np.float32))
