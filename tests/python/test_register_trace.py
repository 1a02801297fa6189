"""servable_config.py files of release 1.4: what they register, and what is refused with which words."""

import numpy as np
import pytest

from mindspore_serving.server import register
from mindspore_serving.server.register._registry import StageKind, ValueRef
from register_configs import DECLARED, HEAD, refs


def test_the_documented_method_becomes_two_stages(config):
    registration = config(
        DECLARED
        + """
@register.register_method(output_names=["y"])
def add_cast(x1, x2):
    x1, x2 = register.call_preprocess(cast, x1, x2)
    y = register.call_servable(x1, x2)
    return y
"""
    )
    method = registration.methods["add_cast"]
    assert (method.inputs, method.outputs) == (("x1", "x2"), ("y",))
    preprocess, model = method.stages
    assert (preprocess.kind, preprocess.tag, preprocess.outputs, preprocess.grouped) == (
        StageKind.PYTHON,
        "Preprocess",
        2,
        False,
    )
    assert preprocess.function(np.int32(1), np.int32(2))[0].dtype == np.float32
    assert refs(preprocess.inputs) == [(0, 0), (0, 1)]
    assert (model.kind, model.tag, model.outputs) == (StageKind.MODEL, "Predict", 1)
    assert refs(model.inputs) == [(1, 0), (1, 1)]
    assert method.returns == (ValueRef(2, 0),)
    assert registration.servable_name == registration.directory.rsplit("/", 1)[1]


@pytest.mark.parametrize(
    ("body", "outputs", "counts", "returns"),
    [
        ("return register.call_servable(a)", ["y"], [1], [(1, 0)]),
        ("return register.call_servable(a)", ["y", "z"], [2], [(1, 0), (1, 1)]),
        ("y, z = register.call_servable(a); return z, y", ["y", "z"], [2], [(1, 1), (1, 0)]),
        ("[y, z] = register.call_servable(a); return z", ["y"], [2], [(1, 1)]),
        ("(y,) = register.call_servable(a); return y", ["y"], [1], [(1, 0)]),
        (
            "r = register.call_servable(a)\n    y, z, w = r\n    return [w, a, b]",
            list("xyz"),
            [3],
            [(1, 2), (0, 0), (0, 1)],
        ),
        ("return register.call_postprocess(halve, register.call_servable(a))", ["y"], [1, 1], [(2, 0)]),
        ("if b is not None:\n        y = register.call_servable(b)\n    return y", ["y"], [1], [(1, 0)]),
        ("y = None\n    for v in [b]:\n        y = register.call_servable(v)\n    return y", ["y"], [1], [(1, 0)]),
        ("s = register.call_servable\n    y = s(a, b)\n    return y, y", ["y", "z"], [1], [(1, 0), (1, 0)]),
        ("y, (z) = register.call_servable(*(a, b)); return {'k': y}['k']", ["y"], [2], [(1, 0)]),
    ],
)
def test_the_use_of_a_result_says_how_many_outputs_there_are(config, body, outputs, counts, returns):
    registration = config(
        DECLARED + f"\n@register.register_method(output_names={outputs})\ndef method(a, b):\n    {body}\n"
    )
    method = registration.methods["method"]
    assert [stage.outputs for stage in method.stages] == counts
    assert refs(method.returns) == returns


def test_a_result_that_nobody_uses_is_one_output(config):
    registration = config(
        DECLARED
        + "@register.register_method('y')\ndef method(a):\n    z = register.call_preprocess(halve, a)\n"
        + "    y = register.call_servable(a)\n    return y\n"
    )
    assert [stage.outputs for stage in registration.methods["method"].stages] == [1, 1]


def test_more_than_255_outputs_can_be_unpacked(config):
    names = ", ".join(f"y{i}" for i in range(300))
    registration = config(
        DECLARED
        + f"@register.register_method('y')\ndef method(a):\n    {names} = register.call_servable(a)\n    return y299\n"
    )
    assert registration.methods["method"].stages[0].outputs == 300


def test_a_method_in_a_function_or_a_condition_is_fine(config):
    registration = config(
        DECLARED
        + """
def make(name):
    def method(x):
        return register.call_servable(x)
    method.__name__ = name
    if True:
        register.register_method("y")(method)

for name in ("first", "second"):
    make(name)
"""
    )
    assert list(registration.methods) == ["first", "second"]


def test_pipelines_are_grouped_stages(config):
    registration = config(
        DECLARED
        + """
@register.register_method("y")
def method(x):
    x = register.call_preprocess_pipeline(many, x)
    y = register.call_servable(x)
    return register.call_postprocess_pipeline(many, y)
"""
    )
    stages = registration.methods["method"].stages
    assert [stage.grouped for stage in stages] == [True, False, True]
    assert [stage.tag for stage in stages] == ["Preprocess", "Predict", "Postprocess"]


def test_functions_may_be_named(config):
    registration = config(
        DECLARED
        + """
@register.register_method("y")
def first(x):
    x = register.call_preprocess(halve, x)
    return register.call_postprocess("argmax_cpp", register.call_servable(x))

@register.register_method("y")
def second(x):
    x = register.call_preprocess("named.halve", x)
    return register.call_servable(x)
""",
        name="named",
    )
    first, second = registration.methods.values()
    assert (first.stages[2].kind, first.stages[2].builtin) == (StageKind.BUILTIN, "argmax_cpp")
    assert second.stages[0].function is first.stages[0].function


def test_register_method_returns_the_function_unchanged(config):
    config(
        DECLARED
        + """
def method(x):
    return register.call_servable(x)
assert register.register_method("y")(method) is method
"""
    )


REFUSED = {
    "the same method twice": (
        "@register.register_method('y')\ndef f(x):\n    return register.call_servable(x)\n" * 2,
        "Method 'f' .* has been registered more than once",
    ),
    "no model call": (
        "@register.register_method('y')\ndef f(x):\n    return x\n",
        "Method 'f' should call call_servable once",
    ),
    "two model calls": (
        "@register.register_method('y')\ndef f(x):\n    y = register.call_servable(x)\n"
        "    return register.call_servable(y)\n",
        "call_servable .* should not be invoked more than once",
    ),
    "two preprocess calls": (
        "@register.register_method('y')\ndef f(x):\n    x = register.call_preprocess(halve, x)\n"
        "    x = register.call_preprocess_pipeline(many, x)\n    return register.call_servable(x)\n",
        "call_preprocess .* should not be invoked more than once",
    ),
    "preprocess after the model": (
        "@register.register_method('y')\ndef f(x):\n    y = register.call_servable(x)\n"
        "    return register.call_preprocess(halve, y)\n",
        "call_servable should be invoked after call_preprocess",
    ),
    "postprocess before the model": (
        "@register.register_method('y')\ndef f(x):\n    y = register.call_postprocess(halve, x)\n"
        "    return register.call_servable(y)\n",
        "call_postprocess should be invoked after call_servable",
    ),
    "too few values returned": (
        "@register.register_method(['y', 'z'])\ndef f(x):\n    y = register.call_servable(x)\n    return (y,)\n",
        r"returns 1 value\(s\), which does not match registered output_names count 2 \(y, z\)",
    ),
    "more outputs than names": (
        "@register.register_method('y')\ndef f(x):\n    r = register.call_servable(x)\n    a, b = r\n    return r\n",
        r"returns 2 value\(s\), which does not match registered output_names count 1",
    ),
    "nothing returned": (
        "@register.register_method('y')\ndef f(x):\n    y = register.call_servable(x)\n",
        r"returns 0 value\(s\), which does not match registered",
    ),
    "a value that is no placeholder": (
        "@register.register_method('y')\ndef f(x):\n    return register.call_servable(x, np.zeros(2))\n",
        "Argument 1 of call_servable should be an input of method 'f'",
    ),
    "a constant returned": (
        "@register.register_method('y')\ndef f(x):\n    register.call_servable(x)\n    return 1\n",
        "Returned value 0 should be an input of method 'f'",
    ),
    "computing": (
        "@register.register_method('y')\ndef f(x):\n    return register.call_servable(x + 1)\n",
        "<input 'x'> is a placeholder: '__add__' is not possible",
    ),
    "computing with numpy": (
        "@register.register_method('y')\ndef f(x):\n    return register.call_servable(np.sqrt(x))\n",
        "<input 'x'> is a placeholder: '__array__' is not possible",
    ),
    "branching": (
        "@register.register_method('y')\ndef f(x):\n    if x:\n        pass\n    return register.call_servable(x)\n",
        "'__bool__' is not possible",
    ),
    "comparing": (
        "@register.register_method('y')\ndef f(x):\n    y = register.call_servable(x)\n    return y if y > 0 else x\n",
        "<result of call_servable> is a placeholder: '__gt__' is not possible",
    ),
    "indexing": (
        "@register.register_method('y')\ndef f(x):\n    return register.call_servable(x)[0]\n",
        "'__getitem__' is not possible",
    ),
    "an unknown count": (
        "@register.register_method('y')\ndef f(x):\n    y, *rest = register.call_servable(x)\n    return y\n",
        "How many outputs call_servable has is not known here",
    ),
    "unpacking an input": (
        "@register.register_method('y')\ndef f(x):\n    a, b = x\n    return register.call_servable(a)\n",
        "<input 'x'> is one value and cannot be unpacked",
    ),
    "one result used in two ways": (
        "@register.register_method('y')\ndef f(x):\n    y = register.call_preprocess(halve, x)\n    a, b = y\n"
        "    return register.call_servable(y)\n",
        r"result of call_preprocess\(halve\) is used as 1 output\(s\) here and as 2 before",
    ),
    "a placeholder of another method": (
        "kept = []\n@register.register_method('y')\ndef f(x):\n    kept.append(x)\n"
        "    return register.call_servable(x)\n"
        "@register.register_method('y')\ndef g(x):\n    return register.call_servable(kept[0])\n",
        "Argument 0 of call_servable is <input 'x'> of another method 'f'",
    ),
    "too many arguments for the function": (
        "@register.register_method('y')\ndef f(x):\n    x = register.call_preprocess(halve, x, x)\n"
        "    return register.call_servable(x)\n",
        r"function of call_preprocess\(halve\) takes 1 input\(s\), \(x\), but 2 are given",
    ),
    "no function": (
        "@register.register_method('y')\ndef f(x):\n    x = register.call_preprocess(1, x)\n"
        "    return register.call_servable(x)\n",
        "'preprocess_fun' should be function or str, but a int",
    ),
    "a function of an unknown name": (
        "@register.register_method('y')\ndef f(x):\n    x = register.call_preprocess('argmax_cpp', x)\n"
        "    return register.call_servable(x)\n",
        "call_preprocess does not know a function named 'argmax_cpp'",
    ),
    "the built-in with two inputs": (
        "@register.register_method('y')\ndef f(x):\n    y = register.call_servable(x)\n"
        "    return register.call_postprocess('argmax_cpp', x, y)\n",
        r"takes 1 input\(s\), but 2 are given",
    ),
    "a subgraph that is not there": (
        "@register.register_method('y')\ndef f(x):\n    return register.call_servable(x, subgraph=1)\n",
        "'subgraph' should be less than 1, the number of files",
    ),
    "a subgraph below 0": (
        "@register.register_method('y')\ndef f(x):\n    return register.call_servable(x, subgraph=-1)\n",
        "'subgraph' should be >= 0",
    ),
    "a subgraph that is no int": (
        "@register.register_method('y')\ndef f(x):\n    return register.call_servable(x, subgraph=True)\n",
        "'subgraph' should be int",
    ),
    "postprocess without the model": (
        "@register.register_method('y')\ndef f(x):\n    return register.call_postprocess(halve, x)\n",
        "call_postprocess should be invoked after call_servable",
    ),
    "preprocess alone beside a model": (
        "@register.register_method('y')\ndef f(x):\n    return register.call_preprocess(halve, x)\n",
        "Method 'f' should call call_servable once",
    ),
    "two postprocess calls": (
        "@register.register_method('y')\ndef f(x):\n    y = register.call_servable(x)\n"
        "    y = register.call_postprocess(halve, y)\n    return register.call_postprocess('argmax_cpp', y)\n",
        "call_postprocess .* should not be invoked more than once",
    ),
    "too few arguments for the function": (
        "@register.register_method('y')\ndef f(x):\n    a, b = register.call_preprocess(cast, x)\n"
        "    return register.call_servable(a)\n",
        r"function of call_preprocess\(cast\) takes 2 input\(s\), \(x1, x2\), but 1 are given",
    ),
    "too many parameters of a pipeline function": (
        "@register.register_method('y')\ndef f(x):\n    a, b = register.call_preprocess_pipeline(cast, x, x)\n"
        "    return register.call_servable(a)\n",
        r"takes 2 input\(s\), \(x1, x2\), but a tuple of instances is given",
    ),
    "no postprocess function": (
        "@register.register_method('y')\ndef f(x):\n    y = register.call_servable(x)\n"
        "    return register.call_postprocess_pipeline(None, y)\n",
        "'postprocess_fun' should be function or str, but a NoneType",
    ),
    "a postprocess function of an unknown name": (
        "@register.register_method('y')\ndef f(x):\n    y = register.call_servable(x)\n"
        "    return register.call_postprocess('add.nothing', y)\n",
        "call_postprocess does not know a function named 'add.nothing'; known are: argmax_cpp",
    ),
    "another output count of the model": (
        "@register.register_method('y')\ndef f(x):\n    return register.call_servable(x)\n"
        "@register.register_method(['y', 'z'])\ndef g(x):\n    y, z = register.call_servable(x)\n    return y, z\n",
        "outputs count 2 of call_servable does not match old count 1",
    ),
    "a model without inputs": (
        "@register.register_method('y')\ndef f(x):\n    return register.call_servable()\n",
        "call_servable needs the model's inputs",
    ),
    "another input count of the model": (
        "@register.register_method('y')\ndef f(x):\n    return register.call_servable(x)\n"
        "@register.register_method('y')\ndef g(x):\n    return register.call_servable(x, x)\n",
        "inputs count 2 of call_servable does not match old count 1",
    ),
    "another output count of a function": (
        "@register.register_method('y')\ndef f(x):\n    x = register.call_preprocess(halve, x)\n"
        "    return register.call_servable(x)\n"
        "@register.register_method('y')\ndef g(x):\n    x, y = register.call_preprocess(halve, x)\n"
        "    return register.call_servable(x)\n",
        r"outputs count 2 of call_preprocess\(halve\) does not match last registered count 1",
    ),
    "variable inputs": (
        "@register.register_method('y')\ndef f(*x):\n    return register.call_servable(x)\n",
        "'x' of method 'f' is VAR_POSITIONAL",
    ),
    "keywords": (
        "@register.register_method('y')\ndef f(**x):\n    return register.call_servable(x)\n",
        "'x' of method 'f' is VAR_KEYWORD",
    ),
    "keyword-only inputs": (
        "@register.register_method('y')\ndef f(*, x):\n    return register.call_servable(x)\n",
        "'x' of method 'f' is KEYWORD_ONLY",
    ),
    "a generator": (
        "@register.register_method('y')\ndef f(x):\n    yield register.call_servable(x)\n",
        "Method 'f' should be a plain function",
    ),
    "no output names": ("register.register_method([])", "'output_names' should not be empty"),
    "repeated output names": ("register.register_method(['y', 'y'])", "'output_names' should have no repeated values"),
    "an output name that is no str": ("register.register_method([1])", r"'output_names\[0\]' should be str"),
    "a call outside of a method": ("register.call_servable(1)", "call_servable should be called in the body"),
    "a second declaration": (
        "register.declare_servable('b.mindir', 'MindIR')",
        "has been declared more than once",
    ),
    "a method inside a method": (
        "@register.register_method('y')\ndef f(x):\n    @register.register_method('y')\n    def g(x):\n"
        "        return register.call_servable(x)\n    return register.call_servable(x)\n",
        "Method 'g' should not be registered inside the body of another method",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_data_flow_is_refused(config, case):
    text, message = REFUSED[case]
    with pytest.raises(RuntimeError, match=message):
        config(DECLARED + text)


def test_a_time_out_is_a_number_of_seconds(config):
    text = """
from mindspore_serving.server import register


@register.register_method("y", timeout_seconds={})
def f(x):
    return x
"""
    for given, kept in (("None", None), ("0.5", 0.5), ("30", 30.0)):
        assert config(text.format(given)).methods["f"].timeout_seconds == kept
    for wrong in ("0", "-1", "True", "'1'", "float('nan')", "float('inf')"):
        with pytest.raises(RuntimeError, match="Parameter 'timeout_seconds' should be"):
            config(text.format(wrong))


def test_a_failed_body_leaves_nothing_behind(config):
    registration = config(
        DECLARED
        + """
try:
    @register.register_method("y")
    def f(x):
        raise KeyError("mine")
except KeyError:
    pass

@register.register_method("y")
def g(x):
    return register.call_servable(x)
"""
    )
    assert list(registration.methods) == ["g"]


def test_the_model_must_be_declared_first(config):
    with pytest.raises(
        RuntimeError, match=r"RegisterInputOutputInfo failed, cannot find servable '.*'\. There is no model declared"
    ):
        config(HEAD + "@register.register_method('y')\ndef f(x):\n    return register.call_servable(x)\n")


def test_a_servable_without_a_model_is_python_alone(config):
    registration = config(
        HEAD
        + """
@register.register_method(["y", "x"])
def method(x):
    y = register.call_preprocess(halve, x)
    return register.call_postprocess(halve, y), x
"""
    )
    assert registration.models == []
    (method,) = registration.methods.values()
    assert [stage.tag for stage in method.stages] == ["Preprocess", "Postprocess"]
    assert refs(method.returns) == [(2, 0), (0, 0)]


def test_registering_outside_of_a_servable_config_is_refused():
    with pytest.raises(RuntimeError, match=r"declare_servable should be called while a servable_config\.py"):
        register.declare_servable("add.mindir", "MindIR")
    with pytest.raises(RuntimeError, match=r"register_method should be called while a servable_config\.py"):
        register.register_method("y")
