"""Declaring a distributed model."""

from __future__ import annotations

from mindspore_serving.server import _checks
from mindspore_serving.server.register._declare import check_without_batch, declare
from mindspore_serving.server.register._model import Model
from mindspore_serving.server.register._registry import ModelDeclaration, RankGroup, current_registration

_MAX_RANKS = 4096


def declare_servable(
    rank_size: int,
    stage_size: int,
    with_batch_dim: bool = True,
    without_batch_dim_inputs: int | list[int] | tuple[int, ...] | None = None,
    enable_pipeline_infer: bool = False,
) -> Model:
    """Declare the distributed model of the servable: once in a servable_config.py, before the methods that call it.

    Such a servable has this one model and is started by `start_servable`; `startup_agents` loads the model's files.

    Args:
        rank_size (int): The number of ranks, that is of processes (and devices) that run the model together.
        stage_size (int): The number of stages of the model; rank_size is a multiple of it. The ranks of the first
            stage get the inputs, the last rank gives the outputs.
        with_batch_dim (bool, optional): True: the first dimension of the model's inputs and outputs is the batch; a
            request's instances come without it, and instances of different requests run together. False: each
            instance is a run of its own. Default: True.
        without_batch_dim_inputs (Union[int, list[int], tuple[int]], optional): The indexes of inputs that have no
            batch dimension although `with_batch_dim` is True. Default: None.
        enable_pipeline_infer (bool, optional): True: up to `stage_size` runs (32 at most) are out over the ranks at a
            time. A rank that has finished its part of a run goes on to the next one at once, so the first stage begins
            a run while later stages work on those before it. Each rank still takes all runs in the same order. False:
            a run begins when all ranks have finished the one before it. Of no effect if `stage_size` is 1, which the
            worker's log says. Default: False.

    Returns:
        Model, for `add_stage` and for functions that call it; `call_servable` finds the model by itself.

    Raises:
        RuntimeError: The type or value of a parameter is invalid, or a model has been declared already.

    Examples:
        >>> from mindspore_serving.server import distributed
        >>> from mindspore_serving.server import register
        >>>
        >>> distributed.declare_servable(rank_size=8, stage_size=1, with_batch_dim=False)
        >>>
        >>> @register.register_method(output_names=["y"])
        >>> def predict(x):
        ...     y = register.call_servable(x)
        ...     return y

        A model of four stages that work on four runs at a time:

        >>> distributed.declare_servable(rank_size=8, stage_size=4, enable_pipeline_infer=True)
    """
    registration = current_registration("distributed.declare_servable")
    ranks = _check_sizes(rank_size, stage_size, enable_pipeline_infer)
    declaration = ModelDeclaration(
        declared_by="distributed.declare_servable",
        files=(f"the distributed model of {ranks.rank_size} ranks",),
        model_format="mindir",
        with_batch_dim=_checks.check_bool("with_batch_dim", with_batch_dim),
        options=None,
        without_batch_dim_inputs=check_without_batch(without_batch_dim_inputs),
        ranks=ranks,
    )
    return declare(registration, declaration)


def _check_sizes(rank_size: object, stage_size: object, enable_pipeline_infer: object) -> RankGroup:
    ranks = _checks.check_int("rank_size", rank_size, 1, _MAX_RANKS)
    stages = _checks.check_int("stage_size", stage_size, 1, _MAX_RANKS)
    if ranks % stages != 0:
        raise RuntimeError(
            f"Parameter 'rank_size' should be a multiple of 'stage_size', but rank_size is {ranks} and stage_size "
            f"{stages}"
        )
    return RankGroup(ranks, stages, _checks.check_bool("enable_pipeline_infer", enable_pipeline_infer))
