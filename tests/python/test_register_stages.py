"""add_stage: what it registers, and what is refused with which words."""

import functools
import re
from pathlib import Path

import pytest

from mindspore_serving.server import register
from mindspore_serving.server.register._registry import StageKind
from register_configs import HEAD, TWO_MODELS, refs

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


def test_the_servable_page_shows_a_servable_that_registers(config):
    page = Path(__file__).resolve().parents[2] / "docs" / "servable.md"
    methods = config("\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))).methods
    assert {name: len(one.stages) for name, one in methods.items()} == {"classify": 3, "classify_brightened": 2}


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
