"""The examples of the API reference, as servable_config.py files and start-up scripts."""

import numpy as np
import pytest

from mindspore_serving import server
from mindspore_serving.server import _launch, distributed, register
from mindspore_serving.server.register._registry import RankGroup, StageKind

HEAD = """
import numpy as np
from mindspore_serving.server import distributed
from mindspore_serving.server import register
from mindspore_serving.server.register import PipelineServable
"""
CAST = """
def cast_both(x1, x2):
    return x1.astype(np.float32), x2.astype(np.float32)

register.declare_servable(servable_file="tensor_add.mindir", model_format="MindIR", with_batch_dim=False)

@register.register_method(output_names=["y"])
def add_cast(x1, x2):
    x1, x2 = register.call_preprocess(cast_both, x1, x2)
    y = register.call_servable(x1, x2)
    return y
"""
CAST_MANY = """
def cast_all(instances):
    for instance in instances:
        x1 = instance[0]
        x2 = instance[0]
        yield x1.astype(np.float32), x2.astype(np.float32)

register.declare_servable(servable_file="tensor_add.mindir", model_format="MindIR", with_batch_dim=False)

@register.register_method(output_names=["y"])
def add_cast(x1, x2):
    x1, x2 = register.call_preprocess_pipeline(cast_all, x1, x2)
    y = register.call_servable(x1, x2)
    return y
"""
PLAIN = """
register.declare_servable(servable_file="tensor_add.mindir", model_format="MindIR", with_batch_dim=False)

@register.register_method(output_names=["y"])
def add_common(x1, x2):
    y = register.call_servable(x1, x2)
    return y
"""
PIPELINE = """
distributed.declare_servable(rank_size=8, stage_size=1, with_batch_dim=False)

@register.register_method(output_names=["y"])
def fun(x):
    y = register.call_servable(x)
    return y

servable = PipelineServable(servable_name="service", method="fun")

@register.register_pipeline(output_names=["y"])
def predict(x):
    y = servable.run(x)
    return y
"""


@pytest.fixture
def config(config):
    """Imports a servable_config.py that begins with HEAD."""
    return lambda text: config(HEAD + text)


@pytest.mark.parametrize(
    ("text", "method", "kinds"),
    [
        (CAST, "add_cast", [StageKind.PYTHON, StageKind.MODEL]),
        (CAST_MANY, "add_cast", [StageKind.PYTHON, StageKind.MODEL]),
        (PLAIN, "add_common", [StageKind.MODEL]),
    ],
    ids=["call_preprocess", "call_preprocess_pipeline", "call_servable"],
)
def test_methods_of_the_reference(config, text, method, kinds):
    registered = config(text).methods[method]
    assert [stage.kind for stage in registered.stages] == kinds
    assert (registered.inputs, registered.outputs) == (("x1", "x2"), ("y",))
    if len(kinds) == 2:
        values = (np.int32(1), np.int32(2))
        function = registered.stages[0].function
        results = function(*values) if not registered.stages[0].grouped else next(function((values,)))
        assert [result.dtype for result in results] == [np.float32, np.float32]


def test_the_pipeline_of_the_reference(config):
    registration = config(PIPELINE)
    assert list(registration.pipelines) == ["predict"] and list(registration.methods) == ["fun"]
    assert registration.models[0].ranks == RankGroup(8, 1, False)


@pytest.mark.parametrize(
    "options",
    [
        'register.AclOptions(op_select_impl_mode="high_precision", precision_mode="allow_fp32_to_fp16")',
        'register.GpuOptions(precision_mode="origin")',
    ],
)
def test_options_of_the_reference(config, options):
    registration = config(
        f"options = {options}\n"
        'register.declare_servable(servable_file="deeptext.mindir", model_format="MindIR", options=options)\n'
    )
    assert repr(registration.models[0].options) == options.removeprefix("register.").replace('"', "'")


def test_start_configs_of_the_reference(tmp_path):
    for name in ("resnet", "add"):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "servable_config.py").touch()
    resnet_config = server.ServableStartConfig(str(tmp_path), "resnet", device_ids=(0, 1))
    add_config = server.ServableStartConfig(str(tmp_path), "add", device_ids=(2, 3))
    plans = _launch.plan_servables(_launch.check_configs((resnet_config, add_config)), tmp_path)
    assert [(plan.name, plan.version, len(plan.workers)) for plan in plans] == [("resnet", 1, 2), ("add", 1, 2)]


def test_a_servable_config_without_methods_is_refused(config, tmp_path):
    from mindspore_serving.worker.main import StartOrder
    from mindspore_serving.worker.stages import ServableStages

    registration = config('register.declare_servable("a.mindir", "MindIR")\n')
    order = StartOrder(str(tmp_path), registration.servable_name, 1, str(tmp_path), 0, None, None)
    with pytest.raises(RuntimeError, match=r"There is no method registered in .*servable_config\.py"):
        ServableStages(None, order, registration)


def test_every_name_of_the_reference_is_exported():
    names = "AclOptions GpuOptions PipelineServable call_postprocess call_postprocess_pipeline call_preprocess"
    names += " call_preprocess_pipeline call_servable declare_servable register_method register_pipeline"
    assert set(names.split()) <= set(register.__all__)
    names = "SSLConfig ServableStartConfig start_grpc_server start_restful_server start_servables stop register"
    assert {*names.split(), "distributed"} <= set(server.__all__)
    assert set(distributed.__all__) == {"declare_servable", "start_servable", "startup_agents"}
