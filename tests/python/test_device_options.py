"""AclOptions, GpuOptions and the device infos: every key, every value, every refusal."""

import pytest

from mindspore_serving.server import register

ACL = {
    "insert_op_cfg_path": None,  # any path
    "input_format": ["ND", "NCHW", "NHWC", "CHWN", "NC1HWC0", "NHWC1C0"],
    "input_shape": None,
    "output_type": ["FP16", "UINT8", "FP32"],
    "precision_mode": ["force_fp16", "allow_fp32_to_fp16", "must_keep_origin_dtype", "allow_mix_precision"],
    "op_select_impl_mode": ["high_performance", "high_precision"],
}
ASCEND = {
    **ACL,
    "fusion_switch_config_path": None,
    "buffer_optimize_mode": ["l1_optimize", "l2_optimize", "off_optimize", "l1_and_l2_optimize"],
}
PRECISION = {"precision_mode": ["origin", "fp16"]}
KEYS = {
    "AclOptions": ACL,
    "GpuOptions": PRECISION,
    "CPUDeviceInfo": PRECISION,
    "GPUDeviceInfo": PRECISION,
    "AscendDeviceInfo": ASCEND,
}
PAIRS = [(kind, key) for kind, keys in KEYS.items() for key in keys]
FREE_TEXT = "input_op_name1: n1,c2,h3,w4;input_op_name2: n4,c3,h2,w1"


@pytest.mark.parametrize(("kind", "key"), PAIRS)
def test_every_documented_value_is_taken(kind, key):
    for value in KEYS[kind][key] or [FREE_TEXT, "/path/to/aipp.cfg"]:
        assert getattr(register, kind)(**{key: value}).values == {key: value}


@pytest.mark.parametrize(("kind", "key"), PAIRS)
@pytest.mark.parametrize("value", [1, None, True, b"FP16", ["FP16"]])
def test_what_is_no_str_is_refused(kind, key, value):
    with pytest.raises(RuntimeError, match=f"'{kind}.{key}' should be str"):
        getattr(register, kind)(**{key: value})


@pytest.mark.parametrize(("kind", "key"), PAIRS)
def test_every_other_value_is_refused_with_those_there_are(kind, key):
    values = KEYS[kind][key]
    with pytest.raises(RuntimeError, match=f"'{kind}.{key}' should not be empty str"):
        getattr(register, kind)(**{key: ""})
    for value in [] if values is None else [values[0].swapcase(), values[0] + " ", "other"]:
        with pytest.raises(RuntimeError, match=f"'{kind}.{key}' should be one of '.*', but '{value}' was given") as why:
            getattr(register, kind)(**{key: value})
        assert all(f"'{allowed}'" in str(why.value) for allowed in values)


@pytest.mark.parametrize("kind", KEYS)
def test_other_keys_are_refused_with_those_there_are(kind):
    with pytest.raises(RuntimeError, match=f"{kind} has no option 'speed'; it has {', '.join(KEYS[kind])}"):
        getattr(register, kind)(speed="high")
    with pytest.raises(TypeError):
        getattr(register, kind)("origin")
    assert getattr(register, kind)().values == {}
