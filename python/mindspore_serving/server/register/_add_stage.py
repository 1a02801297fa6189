"""Stages of any kind, number and order in a method's body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mindspore_serving.server import _checks
from mindspore_serving.server.register._body import (
    BUILTINS,
    INSTANCE,
    STACKED,
    TUPLE,
    MethodBody,
    check_accepts,
    check_arity,
    check_grouping,
    find_function,
    name_of,
    require_body,
)
from mindspore_serving.server.register._model import Model
from mindspore_serving.server.register._registry import Stage, StageKind


def add_stage(
    stage: Callable[..., Any] | Model | str,
    *args: Any,
    outputs_count: int,
    batch_size: int | None = None,
    tag: str | None = None,
    stack: bool = False,
) -> Any:
    """In a method's body: add a stage, in which a Python function or a model works on values of each instance.

    A method may have any number of stages in any order, or none. Its body is plain Python that runs once: conditions
    and loops decide which stages there are, never what happens to a request.

    Args:
        stage (Union[function, Model, str]): A function, a model that `declare_model` returned, the name of a function
            that was used before ("<servable>.<function>"), or "argmax_cpp", which returns the position of the largest
            of all elements of its one input as int64.
        args: The stage's inputs: inputs of the method, or results of earlier stages. Of a model with several
            sub-graphs the first is run.
        outputs_count (int): The number of the stage's outputs.
        batch_size (int, optional): How a function is called. None: with the values of one instance. Otherwise: with a
            tuple of instances, each a tuple of its values; it yields, or returns a list or tuple of, one result for
            each instance in order. The number is the most instances of a call; 0 leaves it to the server: the
            smallest batch size of the method's models if the stage takes inputs of the method alone, otherwise the
            largest, and 1 without models. A function is used in one way everywhere. No effect on models and built-ins.
            Default: None.
        tag (str, optional): What a failure of the stage is called: "Call <tag> Failed". Default: the function's name.
        stack (bool, optional): Only with `batch_size`. True: the function is called with one array for each input, in
            which each instance is a row, and returns one array with a row for each instance (a tuple of them if
            `outputs_count` is above 1). Instances whose shapes or types differ come in calls of their own. Text and
            bytes come, and may be returned, as lists. Default: False.

    Returns:
        A placeholder of the stage's output, or a tuple of placeholders if `outputs_count` is above 1.

    Raises:
        RuntimeError: The type or value of a parameter is invalid, or the method uses `call_preprocess`,
            `call_servable` or `call_postprocess` as well.

    Examples:
        >>> from mindspore_serving.server import register
        >>> import numpy as np
        >>> add_model = register.declare_model(model_file="tensor_add.mindir", model_format="MindIR")
        >>>
        >>> def to_float32(x1, x2):
        ...     return x1.astype(np.float32), x2.astype(np.float32)
        >>>
        >>> @register.register_method(output_names=["y"])
        >>> def add_cast(x1, x2):
        ...     x1, x2 = register.add_stage(to_float32, x1, x2, outputs_count=2)
        ...     y = register.add_stage(add_model, x1, x2, outputs_count=1)
        ...     return y
        >>>
        >>> def normalise(x):  # an array with one row for each instance
        ...     return x / np.maximum(x.max(axis=1, keepdims=True), 1)
        >>>
        >>> @register.register_method(output_names=["y"])
        >>> def normalised(x):
        ...     return register.add_stage(normalise, x, outputs_count=1, batch_size=32, stack=True)
    """
    body = require_body("add_stage")
    if body.called:
        body.refuse_mix(body.called[0])
    body.adds_stages = True
    _checks.check_int("outputs_count", outputs_count, 1)
    if batch_size is not None:
        _checks.check_int("batch_size", batch_size)
    if tag is not None:
        _checks.check_str("tag", tag)
    if _checks.check_bool("stack", stack) and batch_size is None:
        raise RuntimeError("Parameter 'stack' should be given together with 'batch_size', the most rows of an array")
    if isinstance(stage, Model):
        made = _model_stage(body, stage, args)
    elif isinstance(stage, str) and stage in BUILTINS:
        made = _builtin_stage(body, stage, args, outputs_count)
    else:
        made = _function_stage(body, stage, args, batch_size, stack)
    made.outputs = outputs_count
    made.tag = tag or ""
    made.failure = _failure(body, made)
    return body.trace.add_counted(made)


def _model_stage(body: MethodBody, model: Model, args: tuple[Any, ...]) -> Stage:
    title = f"add_stage({model!r})"
    numbers = [i for i, known in enumerate(body.registration.models) if known is model._declaration]
    if not numbers:
        raise RuntimeError(f"{model!r} is not a model of servable '{body.registration.servable_name}'")
    if not args:
        raise RuntimeError(f"{title} needs the model's inputs, but none was given")
    return Stage(StageKind.MODEL, title, body.trace.read(args, title), model=numbers[0])


def _builtin_stage(body: MethodBody, name: str, args: tuple[Any, ...], outputs_count: int) -> Stage:
    title = f"add_stage('{name}')"
    check_arity(title, BUILTINS[name], len(args))
    if outputs_count != 1:
        raise RuntimeError(f"{title} has 1 output, but outputs_count is {outputs_count}")
    return Stage(StageKind.BUILTIN, title, body.trace.read(args, title), builtin=name)


def _function_stage(
    body: MethodBody, stage: object, args: tuple[Any, ...], batch_size: int | None, stack: bool
) -> Stage:
    registration = body.registration
    function = stage
    if isinstance(stage, str):
        _checks.check_str("stage", stage)
        function = find_function(registration, stage, "add_stage", builtins=True)
        before = registration.function_takes[id(function)][1]
        if batch_size is None and before != INSTANCE:
            batch_size, stack = 0, before == STACKED  # a name alone means the function as it was used before
    if not callable(function):
        raise RuntimeError(
            f"Parameter 'stage' should be function, Model or str, but a {type(function).__name__} was given"
        )
    name = name_of(function)
    title = f"add_stage({name})"
    grouped = batch_size is not None
    takes = STACKED if stack else TUPLE if grouped else INSTANCE
    check_accepts(title, function, len(args), takes)
    check_grouping(registration, title, function, takes)
    inputs = body.trace.read(args, title)
    registration.functions[f"{registration.servable_name}.{name}"] = function
    return Stage(
        StageKind.PYTHON, title, inputs, function=function, grouped=grouped, stacked=stack, batch_size=batch_size
    )


def _failure(body: MethodBody, stage: Stage) -> str:
    place = f"method '{body.trace.method_name}', stage {len(body.trace.stages) + 1}"
    if stage.tag:
        return f"Call {stage.tag} Failed, {place}"
    if stage.kind is StageKind.MODEL:
        return f"Predict Failed, {place}"
    if stage.kind is StageKind.BUILTIN:
        return f"Call Function '{stage.builtin}' Failed, {place}"
    assert stage.function is not None
    return f"Call Function '{body.registration.servable_name}.{name_of(stage.function)}' Failed, {place}"
