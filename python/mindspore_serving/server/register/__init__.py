"""What a ``servable_config.py`` uses: declare models, register methods, say how data flows through them.

The module runs once in each worker process. A method's body runs once too, with placeholders for the values of later
requests, and only records which function or model gets which values. `add_stage` takes functions and models in any
number and order; `call_preprocess`, `call_servable` and `call_postprocess` have one fixed place each.
"""

from mindspore_serving.server.register._add_stage import add_stage
from mindspore_serving.server.register._context import AscendDeviceInfo, Context, CPUDeviceInfo, GPUDeviceInfo
from mindspore_serving.server.register._declare import declare_model, declare_servable
from mindspore_serving.server.register._method import (
    call_postprocess,
    call_postprocess_pipeline,
    call_preprocess,
    call_preprocess_pipeline,
    call_servable,
    register_method,
)
from mindspore_serving.server.register._model import Model
from mindspore_serving.server.register._options import AclOptions, GpuOptions
from mindspore_serving.server.register._pipeline import PipelineServable, register_pipeline

__all__ = [
    "AclOptions",
    "AscendDeviceInfo",
    "CPUDeviceInfo",
    "Context",
    "GPUDeviceInfo",
    "GpuOptions",
    "Model",
    "PipelineServable",
    "add_stage",
    "call_postprocess",
    "call_postprocess_pipeline",
    "call_preprocess",
    "call_preprocess_pipeline",
    "call_servable",
    "declare_model",
    "declare_servable",
    "register_method",
    "register_pipeline",
]
