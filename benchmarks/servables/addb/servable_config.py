"""The same sum, exported for batches of 32; predict_cast casts in Python first."""

import numpy as np

from mindspore_serving.server import register

register.declare_servable(servable_file="addb.mindir", model_format="MindIR", with_batch_dim=True)


def to_float32(x1, x2):
    return x1.astype(np.float32), x2.astype(np.float32)


@register.register_method(output_names=["y"])
def predict(x1, x2):
    y = register.call_servable(x1, x2)
    return y


@register.register_method(output_names=["y"])
def predict_cast(x1, x2):
    x1, x2 = register.call_preprocess(to_float32, x1, x2)
    y = register.call_servable(x1, x2)
    return y
