"""declare_servable and its options."""

import pytest

from mindspore_serving.server import register
from register_configs import HEAD


def declare(config, arguments):
    (model,) = config(HEAD + f"register.declare_servable({arguments})").models
    return model


def test_a_declaration_keeps_its_arguments(config):
    model = declare(config, "'a.mindir', 'MINDIR'")
    assert (model.files, model.model_format, model.with_batch_dim, model.options) == (
        ("a.mindir",),
        "mindir",
        True,
        None,
    )
    assert model.without_batch_dim_inputs == ()
    model = declare(config, "['a.om', 'b.om'], 'Om', False, {'k': 'v'}, without_batch_dim_inputs=0")
    assert (model.files, model.model_format, model.with_batch_dim) == (("a.om", "b.om"), "om", False)
    assert model.options == {"k": "v"}
    assert model.without_batch_dim_inputs == (0,)  # a plain 0 counts
    assert declare(config, "'a', 'mindir', without_batch_dim_inputs=[2, 1]").without_batch_dim_inputs == (2, 1)
    assert declare(config, "('a.mindir', 'b.mindir'), 'mindir'").files == ("a.mindir", "b.mindir")
    assert declare(config, "'a', 'mindir', without_batch_dim_inputs=(0, 3)").without_batch_dim_inputs == (0, 3)
    gpu = declare(config, "'a', 'mindir', options=register.GpuOptions(precision_mode='fp16')").options
    assert isinstance(gpu, register.GpuOptions) and gpu.values == {"precision_mode": "fp16"}
    assert declare(config, "'a', 'om', options=register.AclOptions(output_type='FP16')").options.values == {
        "output_type": "FP16"
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("1, 'MindIR'", "'servable_file' should be str, or list or tuple of str"),
        ("'', 'MindIR'", "'servable_file' should not be empty str"),
        ("[], 'MindIR'", "'servable_file' should not be empty"),
        ("['a', 'a'], 'MindIR'", "'servable_file' should have no repeated values"),
        ("['a', 1], 'MindIR'", r"'servable_file\[1\]' should be str"),
        ("'a', 'onnx'", "'model_format' should be 'MindIR' or 'OM'"),
        ("'a', None", "'model_format' should be str"),
        ("'a', 'MindIR', 1", "'with_batch_dim' should be bool"),
        ("'a', 'MindIR', options='fp16'", "'options' should be AclOptions, GpuOptions, dict or None"),
        ("'a', 'MindIR', options={'a': 1}", r"options\['a'\]' should be str"),
        ("'a', 'MindIR', without_batch_dim_inputs=-1", "'without_batch_dim_inputs' should be >= 0"),
        ("'a', 'MindIR', without_batch_dim_inputs='0'", "'without_batch_dim_inputs' should be int"),
        ("'a', 'MindIR', without_batch_dim_inputs=(1, 1)", "'without_batch_dim_inputs' should have no repeated"),
    ],
)
def test_a_wrong_declaration_is_refused(config, arguments, message):
    with pytest.raises(RuntimeError, match=message):
        declare(config, arguments)


def test_options_take_only_what_is_documented():
    assert register.GpuOptions(precision_mode="fp16").values == {"precision_mode": "fp16"}
    options = register.AclOptions(
        insert_op_cfg_path="aipp.cfg",
        input_format="NCHW",
        input_shape="a: 1,2",
        output_type="UINT8",
        precision_mode="allow_mix_precision",
        op_select_impl_mode="high_precision",
    )
    assert len(options.values) == 6
    for make, message in (
        (lambda: register.AclOptions(speed="high"), "AclOptions has no option 'speed'"),
        (lambda: register.AclOptions(input_format="NWHC"), "'AclOptions.input_format' should be one of 'ND'"),
        (lambda: register.AclOptions(output_type=1), "'AclOptions.output_type' should be str"),
        (lambda: register.AclOptions(input_shape=""), "'AclOptions.input_shape' should not be empty str"),
        (lambda: register.GpuOptions(precision_mode="fp64"), "'GpuOptions.precision_mode' should be one of 'origin'"),
        (lambda: register.GpuOptions(output_type="FP16"), "GpuOptions has no option 'output_type'"),
    ):
        with pytest.raises(RuntimeError, match=message):
            make()
