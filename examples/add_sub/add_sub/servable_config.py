"""Two models and Python stages in one method, called with one instance or with many."""

import numpy as np

from mindspore_serving.server import register

add_model = register.declare_model(model_file="add.mindir", model_format="MindIR", with_batch_dim=True)
sub_model = register.declare_model(model_file="sub.mindir", model_format="MindIR", with_batch_dim=True)


def to_float32(x1, x2, x3):
    """Called with one instance."""
    return x1.astype(np.float32), x2.astype(np.float32), x3.astype(np.float32)


def clip(instances):
    """Called with a tuple of instances, because its stage has a batch_size."""
    sums = np.stack([total for (total,) in instances])
    return list(np.clip(sums, 0, 100))


@register.register_method(output_names=["y"])
def add_clip_sub(x1, x2, x3):
    """clip(x1 + x2) - x3"""
    x1, x2, x3 = register.add_stage(to_float32, x1, x2, x3, outputs_count=3, tag="Preprocess")
    total = register.add_stage(add_model, x1, x2, outputs_count=1)
    clipped = register.add_stage(clip, total, outputs_count=1, batch_size=16)
    y = register.add_stage(sub_model, clipped, x3, outputs_count=1)
    return y


@register.register_method(output_names=["y", "largest"])
def add_often(x1, x2):
    """x1 + 3 * x2 and the place of its largest element: a loop says which stages there are."""
    y = x1
    for _ in range(3):
        y = register.add_stage(add_model, y, x2, outputs_count=1)
    largest = register.add_stage("argmax_cpp", y, outputs_count=1)
    return y, largest
