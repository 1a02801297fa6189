"""Pipelines: methods of plain Python that run registered methods in loops and branches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from mindspore_serving.server import _checks
from mindspore_serving.server.register import _calls
from mindspore_serving.server.register._method import read_signature
from mindspore_serving.server.register._registry import Method, Stage, StageKind, ValueRef, current_registration

_Function = TypeVar("_Function", bound=Callable[..., Any])

_MAX_CONCURRENCY = 64


class PipelineServable:
    """A registered method, to be run from a pipeline.

    Args:
        servable_name (str): The name of the servable: the one whose servable_config.py this is.
        method (str): The name of a method registered there.
        version_number (int, optional): The version; 0: the one that is running. Default: 0.

    Raises:
        RuntimeError: The type or value of a parameter is invalid.

    Examples:
        >>> from mindspore_serving.server import register
        >>> register.declare_servable(servable_file="service.mindir", model_format="MindIR", with_batch_dim=False)
        >>> @register.register_method(output_names=["y"])
        ... def fun(x):
        ...     y = register.call_servable(x)
        ...     return y
        >>> servable = register.PipelineServable(servable_name="service", method="fun")
        >>> @register.register_pipeline(output_names=["y"])
        ... def predict(x):
        ...     y = servable.run(x)
        ...     return y
    """

    def __init__(self, servable_name: str, method: str, version_number: int = 0) -> None:
        self.servable_name = _checks.check_str("servable_name", servable_name)
        self.method = _checks.check_str("method", method)
        self.version_number = _checks.check_int("version_number", version_number)

    def __repr__(self) -> str:
        return f"PipelineServable({self.servable_name!r}, {self.method!r}, {self.version_number})"

    def run(self, *args: Any) -> Any:
        """Run the method, in this worker, and wait for its outputs.

        Args:
            args (numpy.ndarray): The method's inputs: arrays, numbers, str, bytes or MindSpore tensors. If the only
                argument is a list, it is a list of instances: each the value of the method's only input, or a tuple
                of the method's inputs. They run together, in the model's batches.

        Returns:
            One output as it is (an array; text as str), several as a tuple; for a list of instances a list with the
            tuple of outputs of each.

        Raises:
            RuntimeError: The servable is not running, there is no such method, an argument is invalid, or the method
                fails.
        """
        calls = _calls.running("PipelineServable.run")
        if len(args) == 1 and isinstance(args[0], list):
            instances = [value if isinstance(value, tuple) else (value,) for value in args[0]]
            return calls.run_method(self.servable_name, self.method, self.version_number, instances)
        return _calls.unwrap(calls.run_method(self.servable_name, self.method, self.version_number, [args])[0])


def register_pipeline(
    output_names: str | tuple[str, ...] | list[str], *, concurrency: int = 1, timeout_seconds: float | None = None
) -> Callable[[_Function], _Function]:
    """Decorate a function to make it a pipeline that clients can call.

    Unlike the body of a method, the function runs for each instance with the real values, as arrays (text as str): it
    may compute, loop and branch on them, and it runs registered methods with `PipelineServable`. Once a servable has a
    pipeline, its pipelines are what clients can call, and its methods are not.

    Args:
        output_names (Union[str, tuple[str], list[str]]): The names of the pipeline's outputs. Its inputs are called
            as the function's parameters.
        concurrency (int, optional): How many instances of this pipeline may run at the same time in a worker, each in
            a thread of its own, 1 to 64: while one waits for a model, another goes on, and their instances share
            batches. Above 1, what the pipeline shares between instances must be safe for threads. Default: 1.
        timeout_seconds (float, optional): How long one instance may take, with all that it waits for, from 0.001. Then
            it is answered with an error, and the worker, which Python cannot take it from, is started again: what else
            runs there is tried once more. None: as long as it likes. Default: None.

    Raises:
        RuntimeError: The type or value of a parameter is invalid, or the pipeline is registered already.

    Examples:
        >>> from mindspore_serving.server import register
        >>> register.declare_servable(servable_file="halve.mindir", model_format="MindIR", with_batch_dim=False)
        >>> @register.register_method(output_names=["y"])
        ... def halve(x):
        ...     y = register.call_servable(x)
        ...     return y
        >>> servable = register.PipelineServable(servable_name="service", method="halve")
        >>> @register.register_pipeline(output_names=["y", "rounds"])
        ... def halve_until_small(x):
        ...     rounds = 0
        ...     while x.max() > 1:
        ...         x = servable.run(x)
        ...         rounds += 1
        ...     return x, rounds
    """
    outputs = _checks.check_names("output_names", output_names)
    _checks.check_int("concurrency", concurrency, 1, _MAX_CONCURRENCY)
    timeout = _checks.check_call_timeout(timeout_seconds)
    registration = current_registration("register_pipeline")

    def register(function: _Function) -> _Function:
        name, inputs = read_signature(function, "register_pipeline")
        if name in registration.pipelines:
            raise RuntimeError(
                f"Pipeline '{name}' of servable '{registration.servable_name}' has been registered more than once"
            )
        stage = Stage(
            StageKind.PYTHON,
            f"register_pipeline({name})",
            tuple(ValueRef(0, i) for i in range(len(inputs))),
            function=function,
            outputs=len(outputs),
            alone=True,
            concurrency=concurrency,
            tag="Pipeline",
        )
        returns = tuple(ValueRef(1, i) for i in range(len(outputs)))
        registration.pipelines[name] = Method(name, inputs, outputs, (stage,), returns, timeout_seconds=timeout)
        return function

    return register
