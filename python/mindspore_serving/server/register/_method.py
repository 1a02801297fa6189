"""Registering methods and the calls in their bodies."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from mindspore_serving.server import _checks
from mindspore_serving.server.register._body import (
    BUILTINS,
    INSTANCE,
    TUPLE,
    MethodBody,
    check_accepts,
    check_arity,
    check_counts,
    check_grouping,
    current_body,
    find_function,
    name_of,
    require_body,
)
from mindspore_serving.server.register._deprecated import note
from mindspore_serving.server.register._registry import (
    Method,
    Registration,
    Stage,
    StageKind,
    current_registration,
)
from mindspore_serving.server.register._trace import StageResult, Trace

_Function = TypeVar("_Function", bound=Callable[..., Any])

_ORDER = ("call_preprocess", "call_servable", "call_postprocess")
_TAGS = {"call_preprocess": "Preprocess", "call_servable": "Predict", "call_postprocess": "Postprocess"}


def register_method(
    output_names: str | tuple[str, ...] | list[str], *, timeout_seconds: float | None = None
) -> Callable[[_Function], _Function]:
    """Decorate a function to make it a method of the servable that clients can call.

    The function's name is the method's name and its parameters are the names of the method's inputs. Its body runs
    once, here, with placeholders: it hands them to `add_stage`, or to `call_preprocess`, `call_servable` and
    `call_postprocess`, and returns placeholders, one for each output name. Placeholders have no values yet, so the
    body cannot compute with them or branch on them. A servable without a model consists of Python functions alone.

    Args:
        output_names (Union[str, tuple[str], list[str]]): The names of the method's outputs.
        timeout_seconds (float, optional): How long one call of a Python function or one run of a model may take for
            this method, in seconds, at least 0.001. When it takes longer, the instances of that call are answered with
            an error at once, and the worker process is ended and started again, since nothing else interrupts it; the
            others in it go to another worker. Time in queues before the call does not count; what a function waits
            for by calling methods and models in turn does. None: any time. Default: None.

    Raises:
        RuntimeError: The type or value of the parameter is invalid, the method is registered already, or its body
            does something that a data flow cannot express.

    Examples:
        >>> from mindspore_serving.server import register
        >>> import numpy as np
        >>> def add_trans_datatype(x1, x2):
        ...      return x1.astype(np.float32), x2.astype(np.float32)
        >>>
        >>> register.declare_servable(servable_file="tensor_add.mindir", model_format="MindIR", with_batch_dim=False)
        >>>
        >>> @register.register_method(output_names=["y"]) # register add_cast method in add
        >>> def add_cast(x1, x2):
        ...     x1, x2 = register.call_preprocess(add_trans_datatype, x1, x2)  # cast input to float32
        ...     y = register.call_servable(x1, x2)
        ...     return y
    """
    outputs = _checks.check_names("output_names", output_names)
    timeout = _checks.check_call_timeout(timeout_seconds)
    registration = current_registration("register_method")

    def register(function: _Function) -> _Function:
        name, inputs = read_signature(function, "register_method")
        if name in registration.methods:
            raise RuntimeError(
                f"Method '{name}' of servable '{registration.servable_name}' has been registered more than once"
            )
        method = _trace_method(registration, function, name, inputs, outputs)
        registration.methods[name] = dataclasses.replace(method, timeout_seconds=timeout)
        return function

    return register


def call_preprocess(preprocess_fun: Callable[..., Any] | str, *args: Any) -> Any:
    """In a method's body: run a Python function on each instance before the model.

    The function gets each value as a NumPy array, or as a str if the client sent text, and returns its outputs: one
    value, or a tuple or list of them. It may change arrays in place.

    Args:
        preprocess_fun (Union[function, str]): The function, or the name of one that was used before:
            "<servable>.<function>".
        args: The function's inputs: inputs of the method. Their number is the number of the function's parameters.

    Returns:
        A placeholder of the function's result, to be unpacked into as many names as the function has outputs.

    Raises:
        RuntimeError: The type or value of a parameter is invalid, or the call is out of order.

    Examples:
        >>> from mindspore_serving.server import register
        >>> import numpy as np
        >>> def add_trans_datatype(x1, x2):
        ...     return x1.astype(np.float32), x2.astype(np.float32)
        >>>
        >>> register.declare_servable(servable_file="tensor_add.mindir", model_format="MindIR", with_batch_dim=False)
        >>>
        >>> @register.register_method(output_names=["y"]) # register add_cast method in add
        >>> def add_cast(x1, x2):
        ...     x1, x2 = register.call_preprocess(add_trans_datatype, x1, x2)  # cast input to float32
        ...     y = register.call_servable(x1, x2)
        ...     return y
    """
    return _call_python("call_preprocess", "preprocess_fun", preprocess_fun, args, grouped=False)


def call_preprocess_pipeline(preprocess_fun: Callable[..., Any] | str, *args: Any) -> Any:
    """In a method's body: run a Python function on many instances at once before the model.

    The function gets a tuple of instances, each a tuple of its values, and yields (or returns a list of) one result
    for each instance in order. Use it to work on the instances of several requests in parallel.

    Args:
        preprocess_fun (Union[function, str]): The function, or the name of one that was used before.
        args: The values of each instance: inputs of the method.

    Returns:
        A placeholder of one instance's result, to be unpacked into as many names as there are outputs.

    Raises:
        RuntimeError: The type or value of a parameter is invalid, or the call is out of order.

    Examples:
        >>> from mindspore_serving.server import register
        >>> import numpy as np
        >>> def add_trans_datatype(instances):
        ...     for x1, x2 in instances:
        ...         yield x1.astype(np.float32), x2.astype(np.float32)
        >>>
        >>> register.declare_servable(servable_file="tensor_add.mindir", model_format="MindIR", with_batch_dim=False)
        >>>
        >>> @register.register_method(output_names=["y"]) # register add_cast method in add
        >>> def add_cast(x1, x2):
        ...     x1, x2 = register.call_preprocess_pipeline(add_trans_datatype, x1, x2)  # cast input to float32
        ...     y = register.call_servable(x1, x2)
        ...     return y
    """
    return _call_python("call_preprocess", "preprocess_fun", preprocess_fun, args, grouped=True)


def call_servable(*args: Any, subgraph: int = 0) -> Any:
    """In a method's body: run the declared model.

    Args:
        args: The model's inputs, in the model's order.
        subgraph (int, optional): Which of the model's files to run. Default: 0.

    Returns:
        A placeholder of the model's outputs, to be unpacked into as many names as the model has outputs.

    Raises:
        RuntimeError: The type or value of a parameter is invalid, no model is declared, or the call is out of order.

    Examples:
        >>> from mindspore_serving.server import register
        >>> register.declare_servable(servable_file="tensor_add.mindir", model_format="MindIR", with_batch_dim=False)
        >>>
        >>> @register.register_method(output_names=["y"]) # register add_common method in add
        >>> def add_common(x1, x2):
        ...     y = register.call_servable(x1, x2)
        ...     return y
    """
    body = _enter("call_servable")
    note(body.registration, "call_servable")
    _checks.check_int("subgraph", subgraph)
    models = body.registration.models
    if not models:
        raise RuntimeError(
            f"RegisterInputOutputInfo failed, cannot find servable '{body.registration.servable_name}'. There is no "
            "model declared: call declare_servable before register_method"
        )
    if len(models) > 1:
        raise RuntimeError(
            f"There are {len(models)} models declared ({', '.join(repr(model.key) for model in models)}), and "
            "call_servable does not say which to run: use add_stage(model, ...) for all stages of the method"
        )
    model = models[0]
    if model.subgraphs is not None and subgraph >= model.subgraphs:
        raise RuntimeError(
            f"Parameter 'subgraph' should be less than {model.subgraphs}, the number of files given to "
            f"{model.declared_by}, but {subgraph} was given"
        )
    if not args:
        raise RuntimeError("call_servable needs the model's inputs, but none was given")
    title = "call_servable" if model.subgraphs == 1 else f"call_servable(subgraph={subgraph})"
    inputs = body.trace.read(args, title)
    return body.trace.add(Stage(StageKind.MODEL, title, inputs, subgraph=subgraph, tag=_TAGS["call_servable"]))


def call_postprocess(postprocess_fun: Callable[..., Any] | str, *args: Any) -> Any:
    """In a method's body: run a Python function on each instance after the model.

    Args:
        postprocess_fun (Union[function, str]): The function, as for `call_preprocess`; or "argmax_cpp", which returns
            the position of the largest of all elements of its one input as int64.
        args: The function's inputs: inputs of the method, or results of its other calls. Their number is the number
            of the function's parameters.

    Returns:
        A placeholder of the function's result, to be unpacked into as many names as the function has outputs.

    Raises:
        RuntimeError: The type or value of a parameter is invalid, or the call is out of order.

    Examples:
        >>> from mindspore_serving.server import register
        >>> register.declare_servable(servable_file="lenet.mindir", model_format="MindIR")
        >>>
        >>> @register.register_method(output_names=["digit"])
        >>> def predict(image):
        ...     scores = register.call_servable(image)
        ...     digit = register.call_postprocess("argmax_cpp", scores)
        ...     return digit
    """
    return _call_python("call_postprocess", "postprocess_fun", postprocess_fun, args, grouped=False)


def call_postprocess_pipeline(postprocess_fun: Callable[..., Any] | str, *args: Any) -> Any:
    """In a method's body: run a Python function on many instances at once after the model.

    Args:
        postprocess_fun (Union[function, str]): The function, as for `call_preprocess_pipeline`.
        args: The values of each instance: inputs of the method, or results of its other calls.

    Returns:
        A placeholder of one instance's result, to be unpacked into as many names as there are outputs.

    Raises:
        RuntimeError: The type or value of a parameter is invalid, or the call is out of order.

    Examples:
        >>> from mindspore_serving.server import register
        >>> def name_digits(instances):
        ...     for (scores,) in instances:
        ...         yield f"digit {scores.argmax()}"
        >>>
        >>> register.declare_servable(servable_file="lenet.mindir", model_format="MindIR")
        >>>
        >>> @register.register_method(output_names=["name"])
        >>> def predict(image):
        ...     scores = register.call_servable(image)
        ...     name = register.call_postprocess_pipeline(name_digits, scores)
        ...     return name
    """
    return _call_python("call_postprocess", "postprocess_fun", postprocess_fun, args, grouped=True)


def read_signature(function: object, decorator: str) -> tuple[str, tuple[str, ...]]:
    """The name and the parameters of a decorated function, which are those of a method or pipeline."""
    if not inspect.isfunction(function):
        raise RuntimeError(f"{decorator} decorates a function, but a {type(function).__name__} was given")
    name = function.__name__
    if (
        inspect.iscoroutinefunction(function)
        or inspect.isgeneratorfunction(function)
        or inspect.isasyncgenfunction(function)
    ):
        raise RuntimeError(f"Method '{name}' should be a plain function, without async or yield")
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.KEYWORD_ONLY):
            raise RuntimeError(
                f"Parameter '{parameter.name}' of method '{name}' is {parameter.kind.name}, which {decorator} does "
                "not support: the inputs of a method are its plain parameters"
            )
    return name, tuple(inspect.signature(function).parameters)


def _trace_method(
    registration: Registration,
    function: Callable[..., Any],
    name: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
) -> Method:
    if current_body.get() is not None:
        raise RuntimeError(f"Method '{name}' should not be registered inside the body of another method")
    trace = Trace(name, inputs)
    body = MethodBody(registration, trace)
    token = current_body.set(body)
    try:
        result = function(*trace.inputs)
        returns = trace.read_returns(result, outputs)
    finally:
        current_body.reset(token)
    if _needs_call_servable(body):
        raise RuntimeError(f"Method '{name}' should call call_servable once, but it does not")
    for stage in trace.stages:
        stage.outputs = stage.outputs or 1  # a result that nobody uses counts as it would under one name
        check_counts(registration, stage)
    return Method(name, inputs, outputs, tuple(trace.stages), returns)


def _needs_call_servable(body: MethodBody) -> bool:
    if body.adds_stages or "call_servable" in body.called:
        return False
    models = body.registration.models
    # A method without any stage is fine beside models of declare_model.
    return bool(models) if body.called else any(model.declared_by == "declare_servable" for model in models)


def _enter(step: str) -> MethodBody:
    """Check that `step` may be called now."""
    body = require_body(step)
    if body.adds_stages:
        body.refuse_mix(step)
    if step in body.called:
        raise RuntimeError(
            f"{step} or its pipeline form should not be invoked more than once in method '{body.trace.method_name}'"
        )
    for later in _ORDER[_ORDER.index(step) + 1 :]:
        if later in body.called:
            raise RuntimeError(f"{later} should be invoked after {step} in method '{body.trace.method_name}'")
    if step == "call_postprocess" and body.registration.models and "call_servable" not in body.called:
        raise RuntimeError(
            f"call_postprocess should be invoked after call_servable in method '{body.trace.method_name}'"
        )
    body.called.append(step)
    return body


def _call_python(step: str, parameter: str, function: object, args: tuple[Any, ...], grouped: bool) -> StageResult:
    body = _enter(step)
    call = f"{step}_pipeline" if grouped else step
    note(body.registration, call)
    tag = _TAGS[step]
    if isinstance(function, str):
        _checks.check_str(parameter, function)
        if step == "call_postprocess" and not grouped and function in BUILTINS:
            title = f"{call}('{function}')"
            check_arity(title, BUILTINS[function], len(args))
            inputs = body.trace.read(args, title)
            return body.trace.add(Stage(StageKind.BUILTIN, title, inputs, builtin=function, outputs=1, tag=tag))
        function = find_function(body.registration, function, call, builtins=call == "call_postprocess")
    if not callable(function):
        raise RuntimeError(
            f"Parameter '{parameter}' should be function or str, but a {type(function).__name__} was given"
        )
    name = name_of(function)
    title = f"{call}({name})"
    takes = TUPLE if grouped else INSTANCE
    check_accepts(title, function, len(args), takes)
    check_grouping(body.registration, title, function, takes)
    inputs = body.trace.read(args, title)
    body.registration.functions[f"{body.registration.servable_name}.{name}"] = function
    return body.trace.add(Stage(StageKind.PYTHON, title, inputs, function=function, grouped=grouped, tag=tag))
