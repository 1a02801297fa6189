"""Methods of add_stage: several models and Python functions in any order, alone, in groups and failing."""

import shutil

import numpy as np
import pytest
import requests

from mindspore_serving.client import Client
from servables import make_script, make_servable
from servers import ServerProcess

# add: no batch dimension. addb: batches of 4. plus100: x1 + x2 + 100, no batch dimension.
MANY_CONFIG = """
import os

import numpy as np
from mindspore_serving.server import register

CORE = max(os.sched_getaffinity(0))
THREADS_BEFORE = set(os.listdir("/proc/self/task"))
context = register.Context(thread_num=1, thread_affinity_core_list=[CORE], enable_parallel=True)
context.append_device_info(register.CPUDeviceInfo(precision_mode="fp16"))
add_model = register.declare_model("add.mindir", "MindIR", with_batch_dim=False)
addb_model = register.declare_model("addb.mindir", "MindIR", context=context)
plus_model = register.declare_model("plus100.mindir", "MindIR", with_batch_dim=False, config_file="mixed.cfg")


def to_float32(x1, x2):
    if (x1 < 0).any():
        raise ValueError("negative numbers are not for us")
    return x1.astype(np.float32), x2.astype(np.float32)


def double(y):
    return y * 2


def affinity_of(x):
    made_since = set(os.listdir("/proc/self/task")) - THREADS_BEFORE
    bound = sum(os.sched_getaffinity(int(thread)) == {CORE} for thread in made_since)
    return np.array(sorted(os.sched_getaffinity(0))), CORE, bound, len(made_since) - bound


def wrong_count(y):
    return y, y


def hundred():
    return np.full((2, 2), 100, np.float32)


def add_in_place(x):
    x += 1
    return x.sum()


def double_each(instances):
    for (y,) in instances:
        if y[0, 0] == 13:
            raise ValueError("thirteen")
        yield y * 2


def group_sizes(instances):
    return [len(instances)] * len(instances)


def same_sizes(instances):
    return tuple((len(instances), y) for y, in instances)


@register.register_method(output_names=["own", "core", "bound", "unbound"])
def affinity(x):
    own, core, bound, unbound = register.add_stage(affinity_of, x, outputs_count=4)
    return own, core, bound, unbound


@register.register_method(output_names=["y", "doubled"])
def chain(x1, x2):
    x1, x2 = register.add_stage(to_float32, x1, x2, outputs_count=2, tag="Preprocess")
    y = register.add_stage(addb_model, x1, x2, outputs_count=1)
    doubled = register.add_stage(double, y, outputs_count=1)
    y = register.add_stage(plus_model, doubled, x2, outputs_count=1)
    y = register.add_stage(addb_model, y, y, outputs_count=1)
    return y, doubled


@register.register_method(output_names=["y"])
def powers(x1, x2):
    y = register.add_stage(add_model, x1, x2, outputs_count=1)
    for _ in range(5):
        y = register.add_stage(add_model, y, y, outputs_count=1)
    return y


@register.register_method(output_names=["y"])
def batched_powers(x1, x2):
    y = register.add_stage(addb_model, x1, x2, outputs_count=1)
    for _ in range(5):
        y = register.add_stage(double, y, outputs_count=1)
        y = register.add_stage(addb_model, y, x2, outputs_count=1)
    return y


@register.register_method(output_names=["y"])
def without_inputs(x1):
    y = register.add_stage(hundred, outputs_count=1)
    return register.add_stage(add_model, x1, y, outputs_count=1)


@register.register_method(output_names=["total", "x1", "y"])
def in_place(x1, x2):
    total = register.add_stage(add_in_place, x1, outputs_count=1)
    y = register.add_stage(add_model, x1, x2, outputs_count=1)
    return total, x1, y


@register.register_method(output_names=["place"])
def place(x1, x2):
    y = register.add_stage(addb_model, x1, x2, outputs_count=1)
    y = register.add_stage(double, y, outputs_count=1)
    return register.add_stage("argmax_cpp", y, outputs_count=1)


@register.register_method(output_names=["y"])
def in_groups(x1, x2):
    y = register.add_stage(addb_model, x1, x2, outputs_count=1)
    return register.add_stage(double_each, y, outputs_count=1, batch_size=3)


@register.register_method(output_names=["first", "second", "third"])
def sizes(x1, x2):
    first = register.add_stage(group_sizes, x1, outputs_count=1, batch_size=0)
    y = register.add_stage(add_model, x1, x2, outputs_count=1)
    second, y = register.add_stage(same_sizes, y, outputs_count=2, batch_size=0)
    y = register.add_stage(addb_model, y, x2, outputs_count=1)
    third = register.add_stage(group_sizes, y, outputs_count=1, batch_size=2)
    return first, second, third


@register.register_method(output_names=["y"])
def contract(x1):
    return register.add_stage(wrong_count, x1, outputs_count=1)


@register.register_method(output_names=["x2", "x1"])
def swap(x1, x2):
    return x2, x1
"""

# No model at all, and no version directory.
PYTHON_CONFIG = """
from mindspore_serving.server import register


def count_words(text):
    return len(text.split())


def shout(text):
    return text.upper()


@register.register_method(output_names=["words", "loud"])
def describe(text):
    loud = register.add_stage(shout, text, outputs_count=1)
    return register.add_stage(count_words, loud, outputs_count=1), loud
"""

# The model of declare_servable, in stages.
BRIDGE_CONFIG = """
from mindspore_serving.server import register

model = register.declare_servable("add.mindir", "MindIR", with_batch_dim=False)


@register.register_method(output_names=["y"])
def old(x1, x2):
    return register.call_servable(x1, x2)


@register.register_method(output_names=["y"])
def new(x1, x2):
    y = register.add_stage(model, x1, x2, outputs_count=1)
    return register.add_stage(model, y, x2, outputs_count=1)
"""


@pytest.fixture(scope="module")
def stages(tmp_path_factory, models):
    folder = tmp_path_factory.mktemp("stages")
    many = make_servable(folder, "many", MANY_CONFIG, {1: models / "add.mindir"})
    for name in ("addb.mindir", "plus100.mindir"):
        shutil.copy(models / name, many / "1")
    (many / "mixed.cfg").write_text("[execution_plan]\n")
    make_servable(folder, "words", PYTHON_CONFIG, {})
    make_servable(folder, "bridge", BRIDGE_CONFIG, {1: models / "add.mindir"})
    with ServerProcess(make_script(folder, ['"many"', '"words"', '"bridge"'])) as server:
        yield server


def call(server, method, instances, servable="many"):
    return Client(server.grpc_address, servable, method).infer(instances)


@pytest.mark.parametrize("count", [1, 3, 4, 9, 40])
def test_TwoModelsAndPythonBetweenThem(stages, make_instances, count):
    instances = make_instances(count, np.int32, seed=count)
    answers = call(stages, "chain", instances)
    assert len(answers) == count
    for instance, answer in zip(instances, answers, strict=True):
        doubled = 2 * (instance["x1"] + instance["x2"])
        np.testing.assert_array_equal(answer["doubled"], doubled.astype(np.float32))
        np.testing.assert_array_equal(answer["y"], 2 * (doubled + instance["x2"] + 100).astype(np.float32))


def test_OneModelInSixStages(stages, make_instances):
    instances = make_instances(7)
    for instance, answer in zip(instances, call(stages, "powers", instances), strict=True):
        np.testing.assert_array_equal(answer["y"], 32 * (instance["x1"] + instance["x2"]))


def test_OneBatchHoldsInstancesOfAllStages(stages, make_instances):
    client = Client(stages.grpc_address, "many", "batched_powers")
    instances = make_instances(60)
    calls = [client.infer_async(instances[i : i + 3]) for i in range(0, 60, 3)]
    answers = [answer for one in calls for answer in one.result()]
    for instance, answer in zip(instances, answers, strict=True):
        expected = instance["x1"] + instance["x2"]
        for _ in range(5):
            expected = 2 * expected + instance["x2"]
        np.testing.assert_array_equal(answer["y"], expected)


def test_FunctionWithoutInputs(stages, make_instances):
    instances = make_instances(5)
    for instance, answer in zip(instances, call(stages, "without_inputs", instances), strict=True):
        np.testing.assert_array_equal(answer["y"], instance["x1"] + 100)


def test_ChangeInPlace_IsSeenByLaterStages(stages, make_instances):
    instances = make_instances(5)
    for instance, answer in zip(instances, call(stages, "in_place", instances), strict=True):
        changed = instance["x1"] + 1
        np.testing.assert_array_equal(answer["x1"], changed)
        np.testing.assert_array_equal(answer["y"], changed + instance["x2"])
        assert answer["total"] == changed.sum()


def test_BuiltInAfterPython(stages, make_instances):
    instances = make_instances(5)
    for instance, answer in zip(instances, call(stages, "place", instances), strict=True):
        assert answer["place"] == (instance["x1"] + instance["x2"]).argmax()


def test_MethodWithoutStages(stages, make_instances):
    (instance,) = make_instances(1)
    (answer,) = call(stages, "swap", [instance])
    np.testing.assert_array_equal(answer["x1"], instance["x1"])
    np.testing.assert_array_equal(answer["x2"], instance["x2"])


def test_FailedStage_IsToldWithTagMethodPlaceAndException(stages, make_instances):
    instances = make_instances(6, np.int32)
    instances[2]["x1"] = np.full((2, 2), -1, np.int32)
    answers = call(stages, "chain", instances)
    error = answers[2]["error"]
    assert error.startswith("Call Preprocess Failed, method 'chain', stage 1: ValueError: negative numbers")
    assert "servable_config.py:" in error
    for number in (0, 1, 3, 4, 5):
        assert "y" in answers[number]


def test_BrokenContract_IsToldWithTheFunctionAndFailsItsInstanceAlone(stages, make_instances):
    answer = call(stages, "contract", make_instances(1))
    assert answer["error"].startswith(
        "Call Function 'many.wrong_count' Failed, method 'contract', stage 1: it returned 2 output(s)"
    )
    assert "y" in call(stages, "chain", make_instances(1, np.int32))[0]


def test_YieldThatRaises_FailsItsInstanceAlone(stages):
    instances = [{"x1": np.full((2, 2), i, np.float32), "x2": np.zeros((2, 2), np.float32)} for i in range(10, 18)]
    answers = call(stages, "in_groups", instances)
    assert answers[3]["error"].startswith(
        "Call Function 'many.double_each' Failed, method 'in_groups', stage 2: ValueError: thirteen"
    )
    for number in (0, 1, 2, 4, 5, 6, 7):
        np.testing.assert_array_equal(answers[number]["y"], 2 * instances[number]["x1"])


def test_GroupsAreNeverLargerThanAskedFor(stages, make_instances):
    answers = call(stages, "sizes", make_instances(64))
    # First: the smallest batch of the method's models. Second: the largest. Third: what the stage says.
    assert {int(answer["first"]) for answer in answers} == {1}
    assert max(int(answer["second"]) for answer in answers) <= 4
    assert max(int(answer["third"]) for answer in answers) <= 2


def test_ServableWithoutModels(stages):
    answers = call(stages, "describe", [{"text": "one two three"}, {"text": "four"}], servable="words")
    assert [(int(answer["words"]), answer["loud"]) for answer in answers] == [(3, "ONE TWO THREE"), (1, "FOUR")]
    body = {"instances": [{"text": "over rest"}]}
    reply = requests.post(f"http://{stages.rest_address}/model/words:describe", json=body, timeout=30)
    assert reply.json() == {"instances": [{"loud": "OVER REST", "words": 2}]}


def test_ModelOfDeclareServable_IsAStageToo(stages, make_instances):
    instances = make_instances(3)
    for method, times in (("old", 1), ("new", 2)):
        for instance, answer in zip(instances, call(stages, method, instances, servable="bridge"), strict=True):
            np.testing.assert_array_equal(answer["y"], instance["x1"] + times * instance["x2"])


def test_ThreadAffinity_BindsEveryThreadThatRunsModels(stages):
    (answer,) = call(stages, "affinity", [{"x": np.zeros(1, np.int32)}])
    assert answer["own"].tolist() == [answer["core"]]
    assert int(answer["bound"]) > 2  # MindSpore's pool is among them
    assert int(answer["unbound"]) == 0


def test_WhatHasNoEffectIsLogged(stages):
    log = stages.worker_logs()
    for text in ("CPUDeviceInfo(precision_mode='fp16')", "enable_parallel=True", "mixed.cfg'"):
        assert any(text in line and "has no effect on this device" in line for line in log.splitlines()), text


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            "model = register.declare_model('add.mindir', 'MindIR', with_batch_dim=False)\n"
            "@register.register_method('y')\n"
            "def f(x):\n"
            "    return register.add_stage(model, x, outputs_count=1)\n",
            "The inputs count 1 with which model 'add.mindir' is used in the methods of servable 'wrong' is not equal "
            "to the count 2",
        ),
        (
            "model = register.declare_model('add.mindir', 'MindIR', with_batch_dim=False)\n"
            "@register.register_method(['y', 'z'])\n"
            "def f(x):\n"
            "    return register.add_stage(model, x, x, outputs_count=2)\n",
            "The outputs count 2 with which model 'add.mindir' is used",
        ),
        ("register.declare_model('add.ms', 'MindIR_Lite')\n", "a format that MindSpore Lite alone runs"),
        (
            "register.declare_model('add.mindir', 'MindIR')\nregister.declare_model('add.mindir', 'MindIR')\n",
            "The model file 'add.mindir' of servable 'wrong' belongs to model 'add.mindir' already",
        ),
    ],
)
def test_WhatCannotWork_EndsTheStartWithItsReason(tmp_path, models, config, message):
    head = "from mindspore_serving.server import register\n"
    make_servable(tmp_path, "wrong", head + config, {1: models / "add.mindir"})
    server = ServerProcess(make_script(tmp_path, ['"wrong"'])).start()
    try:
        assert server.wait_exit(120) != 0
        assert message in server.log
    finally:
        server.kill()
