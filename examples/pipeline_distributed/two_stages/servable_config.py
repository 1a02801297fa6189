"""A model of two stages: the first rank gets the inputs, the last one gives the outputs."""

import os

import numpy as np

from mindspore_serving.server import distributed, register

PIPELINE = os.environ.get("TWO_STAGES_PIPELINE") == "1"  # serving_server.py --pipeline

model = distributed.declare_servable(rank_size=2, stage_size=2, enable_pipeline_infer=PIPELINE)


def best(probabilities):
    return np.int32(np.argmax(probabilities)), probabilities.max()


@register.register_method(output_names=["label", "probability"])
def classify(x):
    probabilities = register.add_stage(model, x, outputs_count=1)
    label, probability = register.add_stage(best, probabilities, outputs_count=2)
    return label, probability
