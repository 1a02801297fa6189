"""add_stage, declare_model, Context: what they register, and what is refused with which words."""

import functools
import itertools
import re
from pathlib import Path

import pytest

from mindspore_serving.server import register
from mindspore_serving.server.register import _registry
from mindspore_serving.server.register._registry import StageKind
from mindspore_serving.worker import _servable_module
from mindspore_serving.worker.loaded_model import LoadedModel
from mindspore_serving.worker.servable_models import ServableModel
from mindspore_serving.worker.stages import group_size

HEAD = """
import functools
import numpy as np
from mindspore_serving.server import register

def cast(x1, x2):
    return x1.astype(np.float32), x2.astype(np.float32)

def halve(x):
    return x / 2

def many(instances):
    for (x,) in instances:
        yield x
"""
TWO_MODELS = (
    HEAD
    + """
add_model = register.declare_model("add.mindir", "MindIR", with_batch_dim=False)
sub_model = register.declare_model(model_file=["sub.mindir", "mul.mindir"], model_format="mindir")
"""
)

_numbers = itertools.count()


@pytest.fixture
def config(tmp_path):
    """Imports a servable_config.py with the given text as a worker does, and returns what it registered."""

    def load(text, name=None, files=()):
        name = name or f"staged{next(_numbers)}"
        folder = tmp_path / name
        folder.mkdir()
        for file in files:
            (folder / file).touch()
        (folder / "servable_config.py").write_text(text)
        _servable_module.import_servable_config(str(tmp_path), name)
        return _registry.registration_of(str(folder))

    return load


@pytest.fixture
def method(config):
    """The method `f(x, z)` with this body, of a servable with two models."""

    def make(body, outputs="'y'", name=None):
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        text = f"\n@register.register_method({outputs})\ndef f(x, z):\n{lines}"
        return config(TWO_MODELS + text, name).methods["f"]

    return make


def refs(values):
    return [(value.stage, value.index) for value in values]


# ---- what is recorded


def test_functions_models_and_built_ins_in_any_order(method):
    made = method(
        "a, b = register.add_stage(cast, x, z, outputs_count=2)\n"
        "s = register.add_stage(sub_model, a, b, outputs_count=1)\n"
        "h = register.add_stage(halve, s, outputs_count=1, tag='Half')\n"
        "y = register.add_stage(add_model, h, x, outputs_count=1)\n"
        "return register.add_stage('argmax_cpp', y, outputs_count=1), h",
        "['place', 'half']",
        name="calc",
    )
    assert [stage.kind for stage in made.stages] == [
        StageKind.PYTHON,
        StageKind.MODEL,
        StageKind.PYTHON,
        StageKind.MODEL,
        StageKind.BUILTIN,
    ]
    assert [refs(stage.inputs) for stage in made.stages] == [
        [(0, 0), (0, 1)],
        [(1, 0), (1, 1)],
        [(2, 0)],
        [(3, 0), (0, 0)],
        [(4, 0)],
    ]
    assert [stage.outputs for stage in made.stages] == [2, 1, 1, 1, 1]
    assert (made.stages[1].model, made.stages[1].subgraph, made.stages[3].model) == (1, 0, 0)
    assert refs(made.returns) == [(5, 0), (3, 0)]
    assert [stage.failure for stage in made.stages] == [
        "Call Function 'calc.cast' Failed, method 'f', stage 1",
        "Predict Failed, method 'f', stage 2",
        "Call Half Failed, method 'f', stage 3",
        "Predict Failed, method 'f', stage 4",
        "Call Function 'argmax_cpp' Failed, method 'f', stage 5",
    ]


def test_a_tag_names_a_model_too(method):
    made = method("return register.add_stage(add_model, x, z, outputs_count=1, tag='Add')")
    assert made.stages[0].failure == "Call Add Failed, method 'f', stage 1"


def test_a_method_may_have_no_stage(method):
    made = method("return z, x", "['z', 'x']")
    assert made.stages == ()
    assert refs(made.returns) == [(0, 1), (0, 0)]


def test_conditions_and_loops_decide_which_stages_there_are(method):
    made = method(
        "y = x\n"
        "for number in range(4):\n"
        "    if number % 2:\n"
        "        y = register.add_stage(halve, y, outputs_count=1)\n"
        "    else:\n"
        "        y = register.add_stage(add_model, y, z, outputs_count=1)\n"
        "return y"
    )
    assert [stage.kind.value for stage in made.stages] == ["model", "python", "model", "python"]
    assert [refs(stage.inputs)[0] for stage in made.stages] == [(0, 0), (1, 0), (2, 0), (3, 0)]


@pytest.mark.parametrize(
    ("batch_size", "grouped", "kept"), [("None", False, None), ("0", True, 0), ("1", True, 1), ("50", True, 50)]
)
def test_batch_size_says_how_the_function_is_called(method, batch_size, grouped, kept):
    function = "many" if grouped else "halve"
    made = method(f"return register.add_stage({function}, x, outputs_count=1, batch_size={batch_size})")
    assert (made.stages[0].grouped, made.stages[0].batch_size) == (grouped, kept)


def test_stack_says_that_the_function_takes_arrays(method):
    made = method(
        "a, b = register.add_stage(cast, x, z, outputs_count=2, batch_size=8, stack=True)\n"
        "return register.add_stage(many, a, outputs_count=1, batch_size=8)",
    )
    assert [(stage.grouped, stage.stacked, stage.batch_size) for stage in made.stages] == [
        (True, True, 8),
        (True, False, 8),
    ]


def test_a_stacked_function_that_is_named_stays_stacked(method):
    made = method(
        "y = register.add_stage(halve, x, outputs_count=1, batch_size=8, stack=True)\n"
        "return register.add_stage('named_stack.halve', y, outputs_count=1)",
        name="named_stack",
    )
    assert [(stage.stacked, stage.batch_size) for stage in made.stages] == [(True, 8), (True, 0)]


def test_a_function_used_before_may_be_named(config):
    registration = config(
        TWO_MODELS
        + """
@register.register_method("y")
def first(x):
    y = register.add_stage(many, x, outputs_count=1, batch_size=8)
    return register.add_stage(halve, y, outputs_count=1)

@register.register_method("y")
def second(x):
    y = register.add_stage("known.halve", x, outputs_count=1)
    y = register.add_stage("known.many", y, outputs_count=1)
    return register.add_stage("known.many", y, outputs_count=1, batch_size=2)
""",
        name="known",
    )
    first, second = registration.methods.values()
    assert second.stages[0].function is first.stages[1].function
    assert [(stage.grouped, stage.batch_size) for stage in second.stages] == [(False, None), (True, 0), (True, 2)]


def test_what_is_called_like_a_function_is_one(config):
    registration = config(
        HEAD
        + """
class Scale:
    def __call__(self, x):
        return x * 2

@register.register_method("y")
def f(x):
    y = register.add_stage(Scale(), x, outputs_count=1)
    y = register.add_stage(functools.partial(halve), y, outputs_count=1)
    return register.add_stage(lambda x: x + 1, y, outputs_count=1)
"""
    )
    stages = registration.methods["f"].stages
    assert [stage.function(2) for stage in stages[::2]] == [4, 3]
    assert isinstance(stages[1].function, functools.partial)


def test_the_two_faces_live_beside_each_other_in_two_methods(config):
    registration = config(
        HEAD
        + """
model = register.declare_servable("add.mindir", "MindIR")

@register.register_method("y")
def old(x1, x2):
    x1, x2 = register.call_preprocess(cast, x1, x2)
    return register.call_servable(x1, x2)

@register.register_method("y")
def new(x1, x2):
    x1, x2 = register.add_stage(cast, x1, x2, outputs_count=2)
    y = register.add_stage(model, x1, x2, outputs_count=1)
    return register.add_stage(model, y, y, outputs_count=1)
"""
    )
    assert [len(made.stages) for made in registration.methods.values()] == [2, 3]
    assert registration.methods["old"].stages[0].failure == ""  # made of the tag, as before


def test_call_servable_takes_the_only_model_however_it_was_declared(config):
    registration = config(
        HEAD
        + """
register.declare_model(["a.mindir", "b.mindir"], "MindIR")

@register.register_method("y")
def f(x):
    return register.call_servable(x, subgraph=1)
"""
    )
    assert registration.methods["f"].stages[0].subgraph == 1


def test_the_migration_page_shows_the_same_method_twice(config):
    page = Path(__file__).resolve().parents[2] / "docs" / "migration.md"
    old, new, loop = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    made = [config(text).methods["mean"] for text in (old, new)]
    seen = [
        [(stage.kind, refs(stage.inputs), stage.outputs, stage.grouped, stage.model) for stage in one.stages]
        for one in made
    ]
    assert seen[0] == seen[1] and len(seen[0]) == 3
    assert made[0].returns == made[1].returns
    assert len(config(loop).methods["add_often"].stages) == 3


# ---- what is refused

REFUSED = {
    "both faces in one method": (
        "y = register.add_stage(halve, x, outputs_count=1)\nreturn register.call_servable(y, z)",
        "Method 'f' mixes call_servable with add_stage",
    ),
    "both faces in the other order": (
        "y = register.call_preprocess(halve, x)\nreturn register.add_stage(add_model, y, z, outputs_count=1)",
        "Method 'f' mixes call_preprocess with add_stage",
    ),
    "call_servable with two models": (
        "return register.call_servable(x, z)",
        r"There are 2 models declared \('add.mindir', 'sub.mindir;mul.mindir'\).* use add_stage",
    ),
    "a value that is no placeholder": (
        "return register.add_stage(halve, np.zeros(2), outputs_count=1)",
        r"Argument 0 of add_stage\(halve\) should be an input of method 'f'",
    ),
    "several outputs handed on as one": (
        "t = register.add_stage(cast, x, z, outputs_count=2)\nreturn register.add_stage(halve, t, outputs_count=1)",
        r"Argument 0 of add_stage\(halve\) should be .* \(tuple\) was given",
    ),
    "unpacking one output": (
        "a, b = register.add_stage(halve, x, outputs_count=1)\nreturn a",
        r"<output 0 of add_stage\(halve\)> is one value and cannot be unpacked",
    ),
    "computing": (
        "return register.add_stage(halve, x + 1, outputs_count=1)",
        "'__add__' is not possible on it.*in a function given to add_stage",
    ),
    "another number of returned values": (
        "return register.add_stage(cast, x, z, outputs_count=2)",
        r"returns 2 value\(s\), which does not match registered output_names count 1",
    ),
    "no outputs": ("return register.add_stage(halve, x, outputs_count=0)", "'outputs_count' should be >= 1"),
    "outputs_count that is no int": (
        "return register.add_stage(halve, x, outputs_count=True)",
        "'outputs_count' should be int",
    ),
    "a negative batch_size": (
        "return register.add_stage(many, x, outputs_count=1, batch_size=-1)",
        "'batch_size' should be >= 0",
    ),
    "batch_size that is no int": (
        "return register.add_stage(many, x, outputs_count=1, batch_size='8')",
        "'batch_size' should be int",
    ),
    "stack without batch_size": (
        "return register.add_stage(halve, x, outputs_count=1, stack=True)",
        "'stack' should be given together with 'batch_size'",
    ),
    "stack that is no bool": (
        "return register.add_stage(halve, x, outputs_count=1, batch_size=4, stack=1)",
        "'stack' should be bool",
    ),
    "a function of two inputs stacked with one": (
        "return register.add_stage(cast, x, outputs_count=2, batch_size=4, stack=True)",
        r"function of add_stage\(cast\) takes 2 input\(s\), .* but 1 are given",
    ),
    "a function with and without stack": (
        "y = register.add_stage(many, x, outputs_count=1, batch_size=4)\n"
        "return register.add_stage(many, y, outputs_count=1, batch_size=4, stack=True)",
        "gets stacked arrays here and a tuple of instances where it was used before: give stack in all",
    ),
    "an empty tag": ("return register.add_stage(halve, x, outputs_count=1, tag='')", "'tag' should not be empty str"),
    "something else as a stage": (
        "return register.add_stage(5, x, outputs_count=1)",
        "'stage' should be function, Model or str, but a int was given",
    ),
    "an unknown name": (
        "return register.add_stage('halve', x, outputs_count=1)",
        "add_stage does not know a function named 'halve'; known are: argmax_cpp",
    ),
    "too many inputs of a function": (
        "return register.add_stage(halve, x, z, outputs_count=1)",
        r"function of add_stage\(halve\) takes 1 input\(s\), \(x\), but 2 are given",
    ),
    "a batch function of several parameters": (
        "return register.add_stage(cast, x, z, outputs_count=2, batch_size=4)",
        r"function of add_stage\(cast\) takes 2 input\(s\), .* but a tuple of instances is given",
    ),
    "a function with and without batch_size": (
        "y = register.add_stage(halve, x, outputs_count=1)\n"
        "return register.add_stage(halve, y, outputs_count=1, batch_size=4)",
        "gets a tuple of instances here and one instance where it was used before: give batch_size in all",
    ),
    "a named function with and without batch_size": (
        "y = register.add_stage(halve, x, outputs_count=1)\n"
        "return register.add_stage('refused.halve', y, outputs_count=1, batch_size=4)",
        "gets a tuple of instances here and one instance where it was used before",
    ),
    "another outputs_count of a function": (
        "y = register.add_stage(halve, x, outputs_count=1)\n"
        "a, b = register.add_stage(halve, y, outputs_count=2)\nreturn a",
        r"outputs count 2 of add_stage\(halve\) does not match last registered count 1",
    ),
    "another number of a model's inputs": (
        "y = register.add_stage(add_model, x, z, outputs_count=1)\n"
        "return register.add_stage(add_model, y, outputs_count=1)",
        r"inputs count 1 of add_stage\(Model\('add.mindir'\)\) does not match old count 2",
    ),
    "a model without inputs": ("return register.add_stage(add_model, outputs_count=1)", "needs the model's inputs"),
    "the built-in with two outputs": (
        "a, b = register.add_stage('argmax_cpp', x, outputs_count=2)\nreturn a",
        r"add_stage\('argmax_cpp'\) has 1 output, but outputs_count is 2",
    ),
    "the built-in with two inputs": (
        "return register.add_stage('argmax_cpp', x, z, outputs_count=1)",
        r"takes 1 input\(s\), but 2 are given",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_data_flow_is_refused(method, case):
    body, message = REFUSED[case]
    with pytest.raises(RuntimeError, match=message):
        method(body, name="refused")


def test_a_model_of_another_servable_is_refused(config):
    foreign = register.Model(config(TWO_MODELS).models[0])
    register.foreign = foreign
    try:
        with pytest.raises(RuntimeError, match=r"Model\('add.mindir'\) is not a model of servable 'home'"):
            config(
                TWO_MODELS
                + "@register.register_method('y')\n"
                + "def f(x):\n    return register.add_stage(register.foreign, x, x, outputs_count=1)\n",
                name="home",
            )
    finally:
        del register.foreign


def test_add_stage_outside_of_a_method_is_refused(config):
    with pytest.raises(RuntimeError, match="add_stage should be called in the body of a function decorated with"):
        config(HEAD + "register.add_stage(halve, 1, outputs_count=1)\n")


# ---- declare_model


def declare(config, arguments, **kwargs):
    (model,) = config(HEAD + f"register.declare_model({arguments})", **kwargs).models
    return model


def test_a_declaration_keeps_its_arguments(config):
    model = declare(config, "['a.mindir', 'b.mindir'], 'MINDIR', False, None, (1, 0)")
    assert (model.files, model.model_format, model.with_batch_dim) == (("a.mindir", "b.mindir"), "mindir", False)
    assert (model.without_batch_dim_inputs, model.key) == ((1, 0), "a.mindir;b.mindir")
    model = declare(config, "'a.mindir', 'MindIR', context=register.Context(thread_num=3)")
    assert (model.context.thread_num, model.config_file, model.with_batch_dim) == (3, None, True)
    assert declare(config, "'a', 'om', options=register.GpuOptions(precision_mode='fp16')").options.values == {
        "precision_mode": "fp16"
    }


@pytest.mark.parametrize(
    ("given", "kept"), [("", 0.0), ("max_batch_wait_ms=10000", 10000.0), ("max_batch_wait_ms=0.5", 0.5)]
)
@pytest.mark.parametrize("declared_by", ["declare_model", "declare_servable"])
def test_a_declaration_says_how_long_a_batch_may_wait(config, declared_by, given, kept):
    text = f"from mindspore_serving.server import register\nregister.{declared_by}('a', 'MindIR', {given})\n"
    assert config(text).models[0].max_batch_wait_ms == kept


def test_a_model_is_called_what_its_files_are_called(config):
    config(TWO_MODELS + "assert sub_model.model_key == 'sub.mindir;mul.mindir' and 'add.mindir' in repr(add_model)\n")


def test_a_relative_config_file_is_beside_the_servable_config(config, tmp_path):
    model = declare(config, "'a', 'mindir', config_file='mixed.cfg'", name="relative", files=["mixed.cfg"])
    assert model.config_file == str(tmp_path / "relative" / "mixed.cfg")
    elsewhere = tmp_path / "elsewhere.cfg"
    elsewhere.touch()
    assert declare(config, f"'a', 'mindir', config_file={str(elsewhere)!r}").config_file == str(elsewhere)
    with pytest.raises(RuntimeError, match=r"'config_file' should be a file, .*/without/mixed.cfg' is none"):
        declare(config, "'a', 'mindir', config_file='mixed.cfg'", name="without")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("1, 'MindIR'", "'model_file' should be str, or list or tuple of str"),
        ("['a', 'a'], 'MindIR'", "'model_file' should have no repeated values"),
        ("'a', 'onnx'", "'model_format' should be 'MindIR' or 'OM'"),
        ("'a.ms', 'MindIR_Lite'", "'MindIR_Lite', a format that MindSpore Lite alone runs"),
        ("'a.ms', 'mindir_opt'", "'mindir_opt', a format that MindSpore Lite alone runs"),
        ("'a', 'MindIR', None", "'with_batch_dim' should be bool"),
        ("'a', 'MindIR', options={'k': 'v'}", "'options' should be AclOptions, GpuOptions or None, but a dict"),
        ("'a', 'MindIR', without_batch_dim_inputs=-1", "'without_batch_dim_inputs' should be >= 0"),
        ("'a', 'MindIR', context=register.GpuOptions()", "'context' should be Context or None, but a GpuOptions"),
        ("'a', 'MindIR', config_file=1", "'config_file' should be str"),
        ("'a', 'MindIR', max_batch_wait_ms='5'", "'max_batch_wait_ms' should be int or float"),
        ("'a', 'MindIR', max_batch_wait_ms=True", "'max_batch_wait_ms' should be int or float"),
        ("'a', 'MindIR', max_batch_wait_ms=-0.5", r"'max_batch_wait_ms' should be in range \[0, 10000\], but -0.5"),
        ("'a', 'MindIR', max_batch_wait_ms=10001", r"'max_batch_wait_ms' should be in range \[0, 10000\]"),
        ("'a', 'MindIR', max_batch_wait_ms=float('nan')", r"'max_batch_wait_ms' should be in range \[0, 10000\]"),
    ],
)
def test_a_wrong_declaration_is_refused(config, arguments, message):
    with pytest.raises(RuntimeError, match=message):
        declare(config, arguments)


@pytest.mark.parametrize("second", ["'./mul.mindir'", "['new.mindir', 'sub.mindir']", "'add.mindir'"])
def test_a_file_belongs_to_one_model(config, second):
    with pytest.raises(RuntimeError, match=r"The model file '.*' of servable 'owners' belongs to model '.*' already"):
        config(TWO_MODELS + f"register.declare_model({second}, 'MindIR')\n", name="owners")


# ---- Context


def test_a_context_keeps_what_it_is_given():
    context = register.Context(thread_num=2, thread_affinity_core_list=[1, 0], enable_parallel=True)
    assert (context.thread_num, context.thread_affinity_core_list, context.enable_parallel) == (2, (1, 0), True)
    context.append_device_info(register.CPUDeviceInfo(precision_mode="fp16"))
    context.append_device_info(register.GPUDeviceInfo())
    context.append_device_info(register.AscendDeviceInfo(buffer_optimize_mode="off_optimize", output_type="FP16"))
    assert {kind: info.values for kind, info in context.device_infos.items()} == {
        "CPU": {"precision_mode": "fp16"},
        "GPU": {},
        "Ascend": {"buffer_optimize_mode": "off_optimize", "output_type": "FP16"},
    }
    assert "thread_num=2" in repr(context) and "CPUDeviceInfo(precision_mode='fp16')" in repr(context)
    with pytest.raises(RuntimeError, match="Device info of type GPU has already been appended"):
        context.append_device_info(register.GPUDeviceInfo(precision_mode="origin"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: register.Context(thread_num=0), "'thread_num' should be >= 1"),
        (lambda: register.Context(thread_num="2"), "'thread_num' should be int"),
        (lambda: register.Context(thread_affinity_core_list=1), "'thread_affinity_core_list' should be list or tuple"),
        (lambda: register.Context(thread_affinity_core_list=[-1]), "'thread_affinity_core_list' should be >= 0"),
        (lambda: register.Context(thread_affinity_core_list=[1, 1]), "should have no repeated values"),
        (lambda: register.Context(enable_parallel=1), "'enable_parallel' should be bool"),
        (lambda: register.Context(threads=1), "Context has no option 'threads'"),
        (lambda: register.Context().append_device_info("CPU"), "'device_info' should be CPUDeviceInfo, GPUDeviceInfo"),
        (lambda: register.Context().append_device_info(register.GpuOptions()), "but a GpuOptions was given"),
        (lambda: register.CPUDeviceInfo(precision_mode="int8"), "'CPUDeviceInfo.precision_mode' should be one of"),
        (lambda: register.GPUDeviceInfo(speed="high"), "GPUDeviceInfo has no option 'speed'"),
        (lambda: register.AscendDeviceInfo(input_format="X"), "'AscendDeviceInfo.input_format' should be one of 'ND'"),
        (lambda: register.AscendDeviceInfo(buffer_optimize_mode="on"), "should be one of 'l1_optimize'"),
        (lambda: register.AscendDeviceInfo(fusion_switch_config_path=""), "should not be empty str"),
    ],
)
def test_a_wrong_context_is_refused(make, message):
    with pytest.raises(RuntimeError, match=message):
        make()


def test_the_newer_names_are_exported():
    for name in (
        "declare_model",
        "Model",
        "AscendDeviceInfo",
        "CPUDeviceInfo",
        "GPUDeviceInfo",
        "Context",
        "register_method",
        "add_stage",
    ):
        assert name in register.__all__ and hasattr(register, name)


# ---- how large a group is


def sizes_of(made, *batch_sizes):
    """The group size of each Python stage, with models of these batch sizes."""
    models = [ServableModel(None, i, [LoadedModel("m", [], batch_size=size)]) for i, size in enumerate(batch_sizes)]
    return [group_size(made, stage, models) for stage in made.stages if stage.kind is StageKind.PYTHON]


STAGES_AROUND_MODELS = """
a = register.add_stage(many, x, outputs_count=1, batch_size=0)
b = register.add_stage(add_model, a, z, outputs_count=1)
c = register.add_stage(many, b, outputs_count=1, batch_size=0)
d = register.add_stage(sub_model, c, z, outputs_count=1)
return register.add_stage(many, d, outputs_count=1, batch_size=5)
""".strip()


def test_batch_size_0_follows_the_models_of_the_method(method):
    made = method(STAGES_AROUND_MODELS)
    assert sizes_of(made, 4, 32) == [4, 32, 5]
    assert sizes_of(made, 0, 8) == [1, 8, 5]  # a model without batch dimension takes one instance
    assert sizes_of(made, -1, 8) == [8, 64, 5]  # a dynamic one as many as the executor gives it


def test_models_of_other_methods_do_not_count(method):
    body = (
        "y = register.add_stage(many, x, outputs_count=1, batch_size=0)\n"
        "return register.add_stage(sub_model, y, z, outputs_count=1)"
    )
    assert sizes_of(method(body), 64, 8) == [8]


def test_batch_size_0_without_models_is_1(method):
    assert sizes_of(method("return register.add_stage(many, x, outputs_count=1, batch_size=0)"), 4, 8) == [1]


def test_a_group_is_never_larger_than_what_a_worker_holds(method):
    assert sizes_of(method("return register.add_stage(many, x, outputs_count=1, batch_size=10**9)"), 4, 4) == [4096]
