"""Models of every kind that can be declared: sub-graphs, inputs without the batch, dynamic shapes, encrypted files."""

import shutil

import numpy as np
import pytest

from mindspore_serving.client import Client
from servables import add_config, make_script, make_servable
from servers import ServerProcess

KEY = b"a key of 24 bytes, no mo"  # of tests/support/export_models.py

# Two sub-graphs of one model; the methods of both wait side by side.
GRAPHS_CONFIG = """
from mindspore_serving.server import register

register.declare_servable(
    servable_file=("addb.mindir", "mulb.mindir"),
    model_format="mInDiR",
    with_batch_dim=True,
    options={"any_key": "any_value"},
    without_batch_dim_inputs=None,
)


@register.register_method(output_names=["y"])
def add(x1, x2):
    y = register.call_servable(x1, x2)
    return y


@register.register_method(output_names=["y"])
def multiply(x1, x2):
    y = register.call_servable(x1, x2, subgraph=1)
    return y


@register.register_method(output_names=("x2", "y", "x1"))
def mixed(x1, x2):
    y = register.call_servable(x1, x2, subgraph=0)
    return x2, y, x1
"""

KINDS_CONFIG = """
import numpy as np
from mindspore_serving.server import register

scale_model = register.declare_model("scale.mindir", "MindIR", without_batch_dim_inputs=0)
rows_model = register.declare_model("rows.mindir", "MindIR")
shapes_model = register.declare_model("shapes.mindir", "MindIR", with_batch_dim=False)


@register.register_method(output_names=["y"])
def scale(factor, x):
    return register.add_stage(scale_model, factor, x, outputs_count=1)


@register.register_method(output_names=["y"])
def rows(x1, x2):
    return register.add_stage(rows_model, x1, x2, outputs_count=1)


@register.register_method(output_names=["y"])
def shapes(x1, x2):
    return register.add_stage(shapes_model, x1, x2, outputs_count=1)


def several(x):
    (a,), (b,) = model_outputs = rows_model.call([[x, x], (x, x)])
    assert isinstance(model_outputs, tuple)
    return a + b


def misused(what):
    x = np.ones((2, 2), np.float32)
    calls = {
        "nothing": lambda: rows_model.call(),
        "no instances": lambda: rows_model.call([]),
        "count": lambda: rows_model.call(x),
        "format": lambda: rows_model.call([x, x]),
        "subgraph": lambda: rows_model.call(x, x, subgraph=1),
        "dtype": lambda: rows_model.call(x, x.astype(np.int32)),
        "size": lambda: scale_model.call(np.ones(2, np.float32), np.ones(3, np.float32)),
    }
    try:
        calls[what]()
    except RuntimeError as error:
        return str(error)
    return "nothing was raised"


@register.register_method(output_names=["y"])
def called(x):
    return register.add_stage(several, x, outputs_count=1)


@register.register_method(output_names=["said"])
def misuse(what):
    return register.add_stage(misused, what, outputs_count=1)
"""

SCRIPT = """
import os
from mindspore_serving import server

folder = os.path.dirname(os.path.abspath(__file__))
key = b"a key of 24 bytes, no mo"
server.start_servables((
    server.ServableStartConfig(folder, "graphs", (0,)),
    server.ServableStartConfig(folder, "kinds", [0], 0, "cpu"),
    server.ServableStartConfig(folder, "secret", 0, 1, None, key, "AES-CBC"),
))
server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"])
server.start_restful_server(os.environ["SERVING_REST_ADDRESS"])
"""


@pytest.fixture(scope="module")
def kinds(tmp_path_factory, models):
    folder = tmp_path_factory.mktemp("kinds")
    graphs = make_servable(folder, "graphs", GRAPHS_CONFIG, {1: models / "addb.mindir"})
    shutil.copy(models / "mulb.mindir", graphs / "1")
    servable = make_servable(folder, "kinds", KINDS_CONFIG, {1: models / "scale.mindir"})
    for name in ("rows", "shapes"):
        shutil.copy(models / f"{name}.mindir", servable / "1")
    make_servable(folder, "secret", add_config("secret"), {1: models / "secret.mindir"})
    (folder / "start.py").write_text(SCRIPT)
    with ServerProcess(folder / "start.py", env={"GLOG_v": "1"}) as server:
        yield server


def call(server, servable, method, *instances):
    answers = Client(server.grpc_address, servable, method).infer(list(instances))
    return answers[0] if isinstance(answers, list) and len(instances) == 1 else answers


def test_SubgraphsAreNumberedByTheirPlaceInTheList(kinds, make_instances):
    instances = make_instances(9)
    clients = {name: Client(kinds.grpc_address, "graphs", name) for name in ("add", "multiply")}
    # Both wait in front of one model at the same time: no run may mix them.
    calls = [(name, one, clients[name].infer_async(one)) for one in instances for name in clients]
    for name, one, pending in calls:
        (answer,) = pending.result()
        expected = one["x1"] + one["x2"] if name == "add" else one["x1"] * one["x2"]
        np.testing.assert_array_equal(answer["y"], expected)


def test_AMethodReturnsInputsAndOutputsInAnyOrder(kinds, make_instances):
    for instance, answer in zip(make_instances(3), call(kinds, "graphs", "mixed", *make_instances(3)), strict=True):
        np.testing.assert_array_equal(answer["x1"], instance["x1"])
        np.testing.assert_array_equal(answer["x2"], instance["x2"])
        np.testing.assert_array_equal(answer["y"], instance["x1"] + instance["x2"])


def test_InputZeroMayBeTheOneWithoutBatchDimension(kinds):
    factors = [np.float32([i % 3, 2]) for i in range(10)]
    x = np.float32([5, 7])
    answers = call(kinds, "kinds", "scale", *({"factor": factor, "x": x} for factor in factors))
    for factor, answer in zip(factors, answers, strict=True):  # each its own, not the first one's
        np.testing.assert_array_equal(answer["y"], factor * x)


@pytest.mark.parametrize("count", [1, 3, 7, 80])
def test_ADynamicBatchTakesAnyNumberOfInstances(kinds, make_instances, count):
    instances = make_instances(count)
    answers = Client(kinds.grpc_address, "kinds", "rows").infer(instances)
    for instance, answer in zip(instances, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], instance["x1"] + instance["x2"])


def test_DynamicShapesDifferFromInstanceToInstance(kinds):
    instances = [
        {"x1": np.full(shape, 1, np.float32), "x2": np.full(shape, i, np.float32)}
        for i, shape in enumerate([(1, 1), (2, 3), (3, 2), (2, 3), (5, 1)])
    ]
    for i, answer in enumerate(call(kinds, "kinds", "shapes", *instances)):
        np.testing.assert_array_equal(answer["y"], np.full(instances[i]["x1"].shape, 1 + i, np.float32))


def test_ModelCallOfInstances(kinds):
    x = np.float32([[1, 2], [3, 4]])
    np.testing.assert_array_equal(call(kinds, "kinds", "called", {"x": x})["y"], 4 * x)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("nothing", "but none was given"),
        ("no instances", "at least one instance"),
        ("count", "needs 2 input(s), but 1 are given"),
        ("format", "should be a list or tuple of the model's inputs"),
        ("subgraph", "'subgraph' should be less than 1"),
        ("dtype", "data type kMSI_Int32 not match the data type kMSI_Float32"),
        ("size", "Given model input 1 size 12 not match the size 8 defined in model"),
    ],
)
def test_AWrongModelCall_RaisesInTheUsersFunction(kinds, what, text):
    assert text in call(kinds, "kinds", "misuse", {"what": what})["said"]


def test_AnEncryptedModelIsServed_AndItsKeyIsNowhere(kinds):
    x = np.ones((2, 2), np.float32)
    np.testing.assert_array_equal(call(kinds, "secret", "add", {"x1": x, "x2": x})["y"], x + x)
    told = kinds.log + kinds.worker_logs()
    for pid in kinds.pids():
        for name in ("cmdline", "environ"):
            with open(f"/proc/{pid}/{name}", "rb") as file:
                told += file.read().decode(errors="replace")
    assert KEY.decode() not in told and KEY.hex() not in told


def test_TheLogSaysWhatReplacesCallsOfEarlierReleases_Once(kinds):
    lines = kinds.worker_logs().splitlines()
    for name, new in (("declare_servable", "declare_model"), ("call_servable", "add_stage(model, ...)")):
        for servable in ("graphs", "secret"):
            text = f"Servable {servable} uses {name} of earlier releases (deprecated)"
            found = [line for line in lines if text in line]
            assert len(found) == 1 and found[0].endswith(f"; {new} replaces it")
    assert not any("Servable kinds uses" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (
            "dec_key=bytes(range(24)), dec_mode='AES-CBC'",
            ["are dec_key and dec_mode those that it was"],
        ),
        ("", ["secret.mindir", "if it is encrypted, give its dec_key"]),
        ("dec_key=KEY, dec_mode='AES-CBC', device_type='GPU'", ["is inconsistent with current running environment"]),
    ],
)
def test_AModelThatCannotBeLoaded_EndsTheStartWithItsReason(tmp_path, models, arguments, messages):
    make_servable(tmp_path, "secret", add_config("secret"), {1: models / "secret.mindir"})
    text = make_script(tmp_path, [f'"secret", {arguments}' if arguments else '"secret"']).read_text()
    (tmp_path / "start.py").write_text(text.replace("folder =", f"KEY = {KEY!r}\nfolder ="))
    server = ServerProcess(tmp_path / "start.py").start()
    try:
        assert server.wait_exit(120) != 0
        for message in ("Load model failed, servable directory", *messages):
            assert message in server.log, server.log
        assert KEY.hex() not in server.log
    finally:
        server.kill()
