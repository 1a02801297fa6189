"""Pipelines and calls: what register_pipeline, PipelineServable and Model refuse, and what reaches the worker."""

from types import SimpleNamespace

import numpy as np
import pytest

from mindspore_serving.server import register
from mindspore_serving.server.register import _calls
from mindspore_serving.worker.nested_calls import NestedCalls
from mindspore_serving.worker.servable_models import ServableModel
from register_configs import import_config, unused_name

HEAD = """
import numpy as np
from mindspore_serving.server import register

model = register.declare_servable(["a.mindir", "b.mindir"], "MindIR", with_batch_dim=False)

@register.register_method(output_names=["y"])
def add(x1, x2):
    return register.call_servable(x1, x2, subgraph=1)

"""
PIPELINE = """
@register.register_pipeline(output_names=["y", "rounds"])
def predict(x, limit):
    return x, 1
"""


@pytest.fixture
def config(tmp_path):
    """Imports a servable_config.py with the given text as a worker does, and returns what it registered, and it."""
    return lambda text: import_config(tmp_path, text, unused_name())


class FakeWorker:
    """The native worker's side: outputs are the sums of the inputs, and `fail_at` fails."""

    def __init__(self):
        self.methods = []
        self.calls = []
        self.outputs = 1
        self.fail_at = -1

    def add_method(self, name, inputs, outputs, stages, returns, internal=False):
        assert internal, "clients must not see a model's own method"
        self.methods.append((name, inputs, outputs, stages, returns))
        return 10 + len(self.methods)

    def call_method(self, number, instances):
        self.calls.append((number, instances))
        return [
            RuntimeError("it broke") if i == self.fail_at else (f"out{i}", f"more{i}")[: self.outputs]
            for i in range(len(instances))
        ]


@pytest.fixture
def served(config):
    """A servable whose functions can call, over a worker that only records."""
    registration, module = config(HEAD + PIPELINE)
    worker = FakeWorker()
    calls = NestedCalls(worker, registration.servable_name, 3)
    calls.add_method(registration.methods["add"], 5)
    graphs = [SimpleNamespace(inputs=[None], outputs=[None]), SimpleNamespace(inputs=[None] * 2, outputs=[None] * 2)]
    calls.add_model(ServableModel(registration.models[0], 0, graphs))
    _calls.set_running(calls)
    yield SimpleNamespace(worker=worker, name=registration.servable_name, model=module.model)
    _calls.set_running(None)


# ---- registering


def test_a_pipeline_is_one_python_stage_handed_one_instance_at_a_time(config):
    registration, module = config(HEAD + PIPELINE)
    pipeline = registration.pipelines["predict"]
    assert pipeline.inputs == ("x", "limit") and pipeline.outputs == ("y", "rounds")
    (stage,) = pipeline.stages
    assert stage.function is module.predict and stage.alone and stage.tag == "Pipeline" and stage.outputs == 2
    assert set(registration.methods) == {"add"}, "methods stay, for PipelineServable"


def test_a_pipeline_is_not_run_while_it_is_registered(config):
    config(HEAD + "@register.register_pipeline('y')\ndef predict(x):\n    raise AssertionError('run')\n")


def test_a_pipeline_says_how_many_of_it_run_at_once(config):
    registration, _ = config(
        HEAD
        + "@register.register_pipeline('y')\ndef one(x):\n    return x\n\n"
        + "@register.register_pipeline('y', concurrency=64)\ndef many(x):\n    return x\n"
    )
    assert [registration.pipelines[name].stages[0].concurrency for name in ("one", "many")] == [1, 64]


@pytest.mark.parametrize(
    "text,message",
    [
        (PIPELINE + PIPELINE, "Pipeline 'predict' of servable '.*' has been registered more than once"),
        ("@register.register_pipeline([])\ndef f(x):\n    return x\n", "'output_names' should not be empty"),
        ("@register.register_pipeline(['y', 'y'])\ndef f(x):\n    return x\n", "no repeated values"),
        (
            "@register.register_pipeline('y', concurrency=0)\ndef f(x):\n    return x\n",
            r"'concurrency' .* range .1, 64.",
        ),
        ("@register.register_pipeline('y', concurrency=65)\ndef f(x):\n    return x\n", r"'concurrency' .* but 65"),
        ("@register.register_pipeline('y', concurrency='2')\ndef f(x):\n    return x\n", "'concurrency' should be int"),
        ("@register.register_pipeline('y', timeout_seconds=0)\ndef f(x):\n    return x\n", "'timeout_seconds'"),
        ("@register.register_pipeline(7)\ndef f(x):\n    return x\n", "'output_names' should be str"),
        ("@register.register_pipeline('y')\ndef f(*x):\n    return x\n", "VAR_POSITIONAL, which register_pipeline"),
        ("@register.register_pipeline('y')\ndef f(x, **y):\n    return x\n", "VAR_KEYWORD, which register_pipeline"),
        ("@register.register_pipeline('y')\ndef f(x):\n    yield x\n", "without async or yield"),
        ("register.register_pipeline('y')(len)\n", "register_pipeline decorates a function"),
    ],
)
def test_what_register_pipeline_refuses(config, text, message):
    with pytest.raises(RuntimeError, match=message):
        config(HEAD + text)


def test_register_pipeline_belongs_into_a_servable_config():
    with pytest.raises(RuntimeError, match=r"register_pipeline should be called while a servable_config\.py"):
        register.register_pipeline("y")


@pytest.mark.parametrize(
    "arguments,message",
    [
        ((1, "add"), "'servable_name' should be str"),
        (("", "add"), "'servable_name' should not be empty"),
        (("add", None), "'method' should be str"),
        (("add", "add", -1), "'version_number' should be >= 0"),
        (("add", "add", True), "'version_number' should be int"),
        (("add", "add", "1"), "'version_number' should be int"),
    ],
)
def test_what_pipeline_servable_refuses(arguments, message):
    with pytest.raises(RuntimeError, match=message):
        register.PipelineServable(*arguments)


# ---- calls


def test_nothing_can_be_called_while_the_configuration_is_imported(config):
    with pytest.raises(RuntimeError, match=r"Model\.call should be called from a function of the running servable"):
        config(HEAD + "model.call(np.ones(1))\n")
    with pytest.raises(RuntimeError, match=r"PipelineServable\.run should be called from a function of the running"):
        config(HEAD + "register.PipelineServable('x', 'add').run(1, 2)\n")


def test_run_gives_one_output_bare_and_several_as_a_tuple(served):
    servable = register.PipelineServable(served.name, "add")
    x = np.ones(3)
    assert servable.run(x, "text") == "out0"
    number, [(first, second)] = served.worker.calls[-1]
    assert number == 5 and first is x and second == "text"
    served.worker.outputs = 2
    assert servable.run(x, b"bytes") == ("out0", "more0")


def test_run_takes_a_list_as_instances(served):
    servable = register.PipelineServable(served.name, "add", 3)
    assert servable.run([(1, 2), (3, 4)]) == [("out0",), ("out1",)]
    assert [[value.item() for value in instance] for instance in served.worker.calls[-1][1]] == [[1, 2], [3, 4]]
    with pytest.raises(RuntimeError, match=r"Instance 0 of .* needs 2 input\(s\), but 1 are given"):
        servable.run([1, 2])


@pytest.mark.parametrize("arguments", [((), "add", 0), (("elsewhere",), "add", 0)])
def test_run_knows_only_this_servable(served, arguments):
    name, method, version = arguments
    with pytest.raises(RuntimeError, match="is not available in this worker"):
        register.PipelineServable(name[0] if name else served.name, method, version or 9).run(1, 2)


def test_run_names_the_methods_there_are(served):
    with pytest.raises(RuntimeError, match=r"method 'sub' is not available; servable '.*' has add"):
        register.PipelineServable(served.name, "sub").run(1, 2)


def test_model_call_forms(served):
    x = np.ones(2)
    assert served.model.call(x) == "out0"
    assert served.worker.calls[-1][0] == 11
    served.worker.outputs = 2
    assert served.model.call(x, x, subgraph=1) == ("out0", "more0")
    assert served.worker.calls[-1][0] == 12
    served.worker.outputs = 1
    assert served.model.call([[x], (x,)]) == (("out0",), ("out1",))
    assert served.model.call(([x],)) == (("out0",),)


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda model: model.call(), "but none was given"),
        (lambda model: model.call([]), "at least one instance"),
        (lambda model: model.call([1.0, 2.0]), "instance 0 is a float"),
        (lambda model: model.call(1, 2), r"needs 1 input\(s\), but 2 are given"),
        (lambda model: model.call([[1], [2, 3]]), r"Instance 1 of the call of model 'a\.mindir' needs 1 input"),
        (lambda model: model.call(1, subgraph=2), "'subgraph' should be less than 2"),
        (lambda model: model.call(1, subgraph=-1), "'subgraph' should be >= 0"),
        (lambda model: model.call(1, subgraph="0"), "'subgraph' should be int"),
        (lambda model: model.call(None), r"Input 0 of the call of model 'a\.mindir' is None"),
        (lambda model: model.call({}), "has dtype object"),
        (lambda model: model.call(1j), "has dtype complex128"),
        (lambda model: model.call(np.longdouble(1)), "has dtype float128"),
        (lambda model: model.call(np.array(["a"])), "has dtype <U1"),
    ],
)
def test_what_model_call_refuses(served, call, message):
    with pytest.raises(RuntimeError, match=message):
        call(served.model)
    assert served.worker.calls == []


def test_a_failed_instance_is_named(served):
    served.worker.fail_at = 1
    with pytest.raises(RuntimeError, match=r"Instance 1 of the call of model 'a\.mindir' failed: it broke"):
        served.model.call([[1], [2], [3]])
    served.worker.fail_at = 0
    with pytest.raises(RuntimeError, match=r"The call of method 'add' of servable '.*' failed: it broke"):
        register.PipelineServable(served.name, "add").run(1, 2)


class Tensor:
    def asnumpy(self):
        return np.arange(6).reshape(2, 3)


@pytest.mark.parametrize(
    "value",
    [
        3,
        2.5,
        True,
        [[1, 2], [3, 4]],
        np.float16(1.5),
        Tensor(),
        np.arange(6).reshape(2, 3).T,
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(20)[::3],
        np.arange(4, dtype=">i4"),
        np.ones((2, 0), np.float32),
        np.array(7),
    ],
)
def test_values_become_contiguous_native_arrays(served, value):
    register.PipelineServable(served.name, "add").run("first", value)
    [(_, array)] = served.worker.calls[-1][1]
    expected = value.asnumpy() if isinstance(value, Tensor) else np.asarray(value)
    np.testing.assert_array_equal(array, expected)
    assert array.flags.c_contiguous and array.dtype.isnative
    assert array.dtype == expected.dtype.newbyteorder("=") and array.shape == expected.shape


def test_a_sub_graph_is_a_hidden_method_of_one_stage(served):
    name, inputs, outputs, (stage,), returns = served.worker.methods[1]
    assert (name, inputs, outputs, returns) == ("@0/1", ["x0", "x1"], ["y0", "y1"], [(1, 0), (1, 1)])
    assert stage["kind"] == "model" and stage["subgraph"] == 1 and stage["inputs"] == [(0, 0), (0, 1)]
