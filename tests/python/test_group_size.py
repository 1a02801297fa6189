"""How many instances a Python stage is handed at once."""

from mindspore_serving.server.register._registry import StageKind
from mindspore_serving.worker.loaded_model import LoadedModel
from mindspore_serving.worker.servable_models import ServableModel
from mindspore_serving.worker.stages import group_size


def sizes_of(made, *batch_sizes):
    """The group size of each Python stage, with models of these batch sizes."""
    models = [ServableModel(None, i, [LoadedModel("m", [], batch_size=size)]) for i, size in enumerate(batch_sizes)]
    return [group_size(made, stage, models) for stage in made.stages if stage.kind is StageKind.PYTHON]


STAGES_AROUND_MODELS = """
a = register.add_stage(many, x, outputs_count=1, batch_size=0)
b = register.add_stage(add_model, a, z, outputs_count=1)
c = register.add_stage(many, b, outputs_count=1, batch_size=0)
d = register.add_stage(sub_model, c, z, outputs_count=1)
return register.add_stage(many, d, outputs_count=1, batch_size=5)
""".strip()


def test_batch_size_0_follows_the_models_of_the_method(method):
    made = method(STAGES_AROUND_MODELS)
    assert sizes_of(made, 4, 32) == [4, 32, 5]
    assert sizes_of(made, 0, 8) == [1, 8, 5]  # a model without batch dimension takes one instance
    assert sizes_of(made, -1, 8) == [8, 64, 5]  # a dynamic one as many as the executor gives it


def test_models_of_other_methods_do_not_count(method):
    body = (
        "y = register.add_stage(many, x, outputs_count=1, batch_size=0)\n"
        "return register.add_stage(sub_model, y, z, outputs_count=1)"
    )
    assert sizes_of(method(body), 64, 8) == [8]


def test_batch_size_0_without_models_is_1(method):
    assert sizes_of(method("return register.add_stage(many, x, outputs_count=1, batch_size=0)"), 4, 8) == [1]


def test_a_group_is_never_larger_than_what_a_worker_holds(method):
    assert sizes_of(method("return register.add_stage(many, x, outputs_count=1, batch_size=10**9)"), 4, 4) == [4096]
