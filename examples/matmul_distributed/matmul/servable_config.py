"""A model that several ranks run together; requests are batched as for any other model."""

import os

import numpy as np

from mindspore_serving.server import distributed, register

model = distributed.declare_servable(rank_size=int(os.environ.get("MATMUL_RANKS", "2")), stage_size=1)


def to_float32(x):
    return x.astype(np.float32)


@register.register_method(output_names=["y"])
def predict(x):
    x = register.add_stage(to_float32, x, outputs_count=1)
    y = register.add_stage(model, x, outputs_count=1)
    return y
