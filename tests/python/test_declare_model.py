"""declare_model and Context: what they keep, and what is refused with which words."""

import pytest

from mindspore_serving.server import register
from register_configs import HEAD, TWO_MODELS

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
