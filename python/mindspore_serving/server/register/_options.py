"""Options of a model for one kind of device."""

from __future__ import annotations

from typing import Any, ClassVar

from mindspore_serving.server import _checks


class DeviceOptions:
    """Keyword options, each a non-empty str, some from a fixed list of values."""

    _allowed: ClassVar[dict[str, tuple[str, ...] | None]] = {}  # None: any value

    def __init__(self, **kwargs: Any) -> None:
        self.values: dict[str, str] = {}
        title = type(self).__name__
        for name, value in kwargs.items():
            if name not in self._allowed:
                raise RuntimeError(f"{title} has no option '{name}'; it has {', '.join(self._allowed)}")
            choices = self._allowed[name]
            label = f"{title}.{name}"
            self.values[name] = (
                _checks.check_str(label, value) if choices is None else _checks.check_choice(label, value, choices)
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.values.items())})"


class AclOptions(DeviceOptions):
    """Options of a model that runs on Ascend.

    Args:
        insert_op_cfg_path (str, optional): Path of the AIPP configuration file.
        input_format (str, optional): Format of the model's inputs: "ND", "NCHW", "NHWC", "CHWN", "NC1HWC0" or
            "NHWC1C0".
        input_shape (str, optional): Shapes of the model's inputs, such as
            "input_op_name1: n1,c2,h3,w4;input_op_name2: n4,c3,h2,w1".
        output_type (str, optional): Type of the model's outputs: "FP16", "UINT8" or "FP32". Default: "FP32".
        precision_mode (str, optional): "force_fp16", "allow_fp32_to_fp16", "must_keep_origin_dtype" or
            "allow_mix_precision". Default: "force_fp16".
        op_select_impl_mode (str, optional): "high_performance" or "high_precision". Default: "high_performance".

    Raises:
        RuntimeError: An option is unknown, not a str, or not one of the values above.

    Examples:
        >>> from mindspore_serving.server import register
        >>> options = register.AclOptions(op_select_impl_mode="high_precision", precision_mode="allow_fp32_to_fp16")
        >>> register.declare_servable(servable_file="deeptext.mindir", model_format="MindIR", options=options)
    """

    _allowed: ClassVar[dict[str, tuple[str, ...] | None]] = {
        "insert_op_cfg_path": None,
        "input_format": ("ND", "NCHW", "NHWC", "CHWN", "NC1HWC0", "NHWC1C0"),
        "input_shape": None,
        "output_type": ("FP32", "FP16", "UINT8"),
        "precision_mode": ("force_fp16", "allow_fp32_to_fp16", "must_keep_origin_dtype", "allow_mix_precision"),
        "op_select_impl_mode": ("high_performance", "high_precision"),
    }


class GpuOptions(DeviceOptions):
    """Options of a model that runs on a GPU.

    Args:
        precision_mode (str, optional): "origin" or "fp16". Default: "origin".

    Raises:
        RuntimeError: An option is unknown, not a str, or not one of the values above.

    Examples:
        >>> from mindspore_serving.server import register
        >>> options = register.GpuOptions(precision_mode="origin")
        >>> register.declare_servable(servable_file="deeptext.mindir", model_format="MindIR", options=options)
    """

    _allowed: ClassVar[dict[str, tuple[str, ...] | None]] = {"precision_mode": ("origin", "fp16")}
