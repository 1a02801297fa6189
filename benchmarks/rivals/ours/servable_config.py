"""The work named in RIVALS_WORK, by MindSpore models or, for RIVALS_OURS=functions, by the functions that the other
servers run: then servers are compared, not kernels."""

import os

from rival_work import functions
from rival_work.works import chosen

from mindspore_serving.server import register

work = chosen()
by_functions = os.environ["RIVALS_OURS"] == "functions"
# Works that are a model of their own; networks have files of their names, exported with a batch dimension.
PLAIN = {"add", "plus_one"}


def declare(name):
    if name in PLAIN:
        return register.declare_model(f"{work.name}.mindir", "MindIR", with_batch_dim=work.max_batch > 1)
    return (
        register.declare_model(f"{name}.mindir", "MindIR", with_batch_dim=True) if name in functions.NETWORKS else None
    )


def as_stage(function, outputs):
    """Ours takes an array for one output and a tuple for several."""

    def run(*arrays):
        results = function(*arrays)
        return tuple(results) if outputs > 1 else results[0]

    return run


def outputs_of(name):
    return len(work.outputs) if name == work.stages[-1] else 1


def make_stage(name):
    model = None if by_functions else declare(name)
    return model or as_stage(functions.stage(name), outputs_of(name))


stages = [(make_stage(name), outputs_of(name)) for name in work.stages]


def body(*values):
    for stage, outputs in stages:
        result = register.add_stage(stage, *values, outputs_count=outputs, batch_size=work.max_batch, stack=True)
        values = result if outputs > 1 else (result,)
    return values if len(values) > 1 else values[0]


output_names = [tensor.name for tensor in work.outputs]
if len(work.inputs) == 2:

    @register.register_method(output_names=output_names)
    def predict(x1, x2):
        return body(x1, x2)

else:

    @register.register_method(output_names=output_names)
    def predict(x):
        return body(x)
