"""The same sum, exported for batches of 32.

predict_cast casts in Python first; predict_empty, predict_three and predict_stacked have Python stages that do nothing.
"""

import numpy as np

from mindspore_serving.server import register

model = register.declare_servable(servable_file="addb.mindir", model_format="MindIR", with_batch_dim=True)


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


def empty(x1):
    return x1


def empty_rows(x1):
    return x1


@register.register_method(output_names=["y"])
def predict_empty(x1, x2):
    x1 = register.add_stage(empty, x1, outputs_count=1)
    return register.add_stage(model, x1, x2, outputs_count=1)


@register.register_method(output_names=["y"])
def predict_three(x1, x2):
    for _ in range(3):
        x1 = register.add_stage(empty, x1, outputs_count=1)
    return register.add_stage(model, x1, x2, outputs_count=1)


@register.register_method(output_names=["y"])
def predict_stacked(x1, x2):
    x1 = register.add_stage(empty_rows, x1, outputs_count=1, batch_size=32, stack=True)
    return register.add_stage(model, x1, x2, outputs_count=1)
