"""The work named in RIVALS_WORK by MindIR models, in the calls of release 2."""

from rival_work import functions
from rival_work.works import chosen

from mindspore_serving.server import register

work = chosen()


def declare(name):
    file = name if name in functions.NETWORKS else work.name
    batched = name in functions.NETWORKS or work.max_batch > 1
    return register.declare_model(model_file=file + ".mindir", model_format="MindIR", with_batch_dim=batched)


def to_unit(x):
    return functions.to_unit(x)[0]


def best(scores):
    digit, share = functions.best(scores[None])
    return digit[0], share[0]


FUNCTIONS = {"to_unit": to_unit, "best": best}
stages = [(FUNCTIONS.get(name) or declare(name), 2 if name == "best" else 1) for name in work.stages]


def body(*values):
    for stage, outputs in stages:
        result = register.add_stage(stage, *values, outputs_count=outputs)
        values = result if outputs > 1 else (result,)
    return values if len(values) > 1 else values[0]


if len(work.inputs) == 2:

    @register.register_method(output_names=[tensor.name for tensor in work.outputs])
    def predict(x1, x2):
        return body(x1, x2)

else:

    @register.register_method(output_names=[tensor.name for tensor in work.outputs])
    def predict(x):
        return body(x)
