"""Two methods on one model: add_common takes float32 as it is, add_cast takes any number type."""

import numpy as np

from mindspore_serving.server import register

register.declare_servable(servable_file="tensor_add.mindir", model_format="MindIR", with_batch_dim=False)


def to_float32(x1, x2):
    return x1.astype(np.float32), x2.astype(np.float32)


@register.register_method(output_names=["y"])
def add_common(x1, x2):
    y = register.call_servable(x1, x2)
    return y


@register.register_method(output_names=["y"])
def add_cast(x1, x2):
    x1, x2 = register.call_preprocess(to_float32, x1, x2)
    y = register.call_servable(x1, x2)
    return y
