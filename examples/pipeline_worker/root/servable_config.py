"""Square roots of vectors of 4: three sub-graphs of one model, and two pipelines that decide what runs next."""

import numpy as np

from mindspore_serving.server import register

register.declare_servable(
    servable_file=["start.mindir", "step.mindir", "error.mindir"], model_format="MindIR", with_batch_dim=True
)

MAX_ROUNDS = 40


@register.register_method(output_names=["y"])
def start(x):
    y = register.call_servable(x, subgraph=0)
    return y


@register.register_method(output_names=["y"])
def step(y, x):
    y = register.call_servable(y, x, subgraph=1)
    return y


@register.register_method(output_names=["error"])
def error(y, x):
    error = register.call_servable(y, x, subgraph=2)
    return error


first_guess = register.PipelineServable(servable_name="root", method="start")
better_guess = register.PipelineServable(servable_name="root", method="step")
error_of = register.PipelineServable(servable_name="root", method="error")


@register.register_pipeline(output_names=["y", "rounds"])
def predict(x):
    """One vector: as many rounds as it needs."""
    if (x <= 0).any():
        raise ValueError("only positive numbers have a root here")
    y = first_guess.run(x)
    rounds = 0
    while (error_of.run(y, x) > 1e-5 * x).any() and rounds < MAX_ROUNDS:
        y = better_guess.run(y, x)
        rounds += 1
    return y, rounds


@register.register_pipeline(output_names=["y", "worst"])
def predict_test(x):
    """Any number of vectors as the rows of one matrix, run together in the model's batches, and the worst error."""
    rows = list(x)
    guesses = [y for (y,) in first_guess.run(rows)]
    for _ in range(MAX_ROUNDS):
        guesses = [y for (y,) in better_guess.run(list(zip(guesses, rows, strict=True)))]
    roots = np.stack(guesses)
    return roots, np.abs(roots - np.sqrt(x)).max()
