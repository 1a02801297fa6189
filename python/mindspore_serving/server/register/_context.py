"""What a model is run with: the device's options and the number of threads."""

from __future__ import annotations

from typing import Any, ClassVar

from mindspore_serving.server import _checks
from mindspore_serving.server.register._options import AclOptions, DeviceOptions, GpuOptions


class DeviceInfo(DeviceOptions):
    """Options for one type of device, to be appended to a `Context`."""

    device_type: ClassVar[str] = ""


class CPUDeviceInfo(DeviceInfo):
    """Options of a model that runs on a CPU.

    Args:
        precision_mode (str, optional): "origin" or "fp16". Default: "origin".

    Raises:
        RuntimeError: An option is unknown, not a str, or not one of the values above.

    Examples:
        >>> from mindspore_serving.server import register
        >>> context = register.Context(thread_num=2)
        >>> context.append_device_info(register.CPUDeviceInfo(precision_mode="origin"))
        >>> model = register.declare_model(model_file="deeptext.mindir", model_format="MindIR", context=context)
    """

    device_type: ClassVar[str] = "CPU"
    _allowed: ClassVar[dict[str, tuple[str, ...] | None]] = GpuOptions._allowed


class GPUDeviceInfo(DeviceInfo):
    """Options of a model that runs on a GPU.

    Args:
        precision_mode (str, optional): "origin" or "fp16". Default: "origin".

    Raises:
        RuntimeError: An option is unknown, not a str, or not one of the values above.

    Examples:
        >>> from mindspore_serving.server import register
        >>> context = register.Context()
        >>> context.append_device_info(register.GPUDeviceInfo(precision_mode="fp16"))
        >>> model = register.declare_model(model_file="deeptext.mindir", model_format="MindIR", context=context)
    """

    device_type: ClassVar[str] = "GPU"
    _allowed: ClassVar[dict[str, tuple[str, ...] | None]] = GpuOptions._allowed


class AscendDeviceInfo(DeviceInfo):
    """Options of a model that runs on Ascend: those of `AclOptions`, and two more.

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
        fusion_switch_config_path (str, optional): Path of the file that switches fusion rules off.
        buffer_optimize_mode (str, optional): "l1_optimize", "l2_optimize", "off_optimize" or "l1_and_l2_optimize".
            Default: "l2_optimize".

    Raises:
        RuntimeError: An option is unknown, not a str, or not one of the values above.

    Examples:
        >>> from mindspore_serving.server import register
        >>> context = register.Context()
        >>> context.append_device_info(register.AscendDeviceInfo(input_format="NCHW"))
        >>> model = register.declare_model(model_file="deeptext.mindir", model_format="MindIR", context=context)
    """

    device_type: ClassVar[str] = "Ascend"
    _allowed: ClassVar[dict[str, tuple[str, ...] | None]] = {
        **AclOptions._allowed,
        "fusion_switch_config_path": None,
        "buffer_optimize_mode": ("l1_optimize", "l2_optimize", "off_optimize", "l1_and_l2_optimize"),
    }


class Context:
    """What a model is run with. The worker picks what concerns its device and says in its log what has no effect.

    Args:
        thread_num (int, optional): The number of threads among which the operators of a model may split their work,
            1 or more. The models of a worker share these threads, so the largest number given counts for all of them.
            Default: what is fastest, measured when a model is loaded.
        thread_affinity_core_list (Union[list[int], tuple[int]], optional): The processor cores of those threads.
            The worker's own threads are bound to them, too; for several models, to those of all together.
        enable_parallel (bool, optional): Whether operators may run in parallel. Checked, but without effect: operators
            run one after the other.

    Raises:
        RuntimeError: An option is unknown, or its type or value is invalid.

    Examples:
        >>> from mindspore_serving.server import register
        >>> context = register.Context(thread_num=2)
        >>> context.append_device_info(register.GPUDeviceInfo(precision_mode="fp16"))
        >>> model = register.declare_model(model_file="tensor_add.mindir", model_format="MindIR", context=context)
    """

    def __init__(self, **kwargs: Any) -> None:
        self.thread_num: int | None = None
        self.thread_affinity_core_list: tuple[int, ...] | None = None
        self.enable_parallel: bool | None = None
        self.device_infos: dict[str, DeviceInfo] = {}  # by device type
        for name, value in kwargs.items():
            if name == "thread_num":
                self.thread_num = _checks.check_int(name, value, 1)
            elif name == "thread_affinity_core_list":
                self.thread_affinity_core_list = _check_cores(name, value)
            elif name == "enable_parallel":
                self.enable_parallel = _checks.check_bool(name, value)
            else:
                raise RuntimeError(
                    f"Context has no option '{name}'; it has thread_num, thread_affinity_core_list, enable_parallel"
                )

    def append_device_info(self, device_info: CPUDeviceInfo | GPUDeviceInfo | AscendDeviceInfo) -> None:
        """Add the options for one type of device.

        Args:
            device_info (Union[CPUDeviceInfo, GPUDeviceInfo, AscendDeviceInfo]): The options. There may be one object
                for each type of device; the worker takes that of the device it runs on.

        Raises:
            RuntimeError: The type is wrong, or options for this type of device are there already.
        """
        if not isinstance(device_info, DeviceInfo) or not device_info.device_type:
            raise RuntimeError(
                "Parameter 'device_info' should be CPUDeviceInfo, GPUDeviceInfo or AscendDeviceInfo, but a "
                f"{type(device_info).__name__} was given"
            )
        if device_info.device_type in self.device_infos:
            raise RuntimeError(f"Device info of type {device_info.device_type} has already been appended")
        self.device_infos[device_info.device_type] = device_info

    def __repr__(self) -> str:
        return (
            f"Context(thread_num={self.thread_num}, thread_affinity_core_list={self.thread_affinity_core_list}, "
            f"enable_parallel={self.enable_parallel}, device_infos={list(self.device_infos.values())})"
        )


def _check_cores(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)):
        raise RuntimeError(f"Parameter '{name}' should be list or tuple of int, but a {type(value).__name__} was given")
    return _checks.check_indexes(name, value)
