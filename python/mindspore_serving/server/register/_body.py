"""A method's body while it is traced, and what all calls in it check alike."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, NoReturn

from mindspore_serving.server.register._registry import Registration, Stage, StageKind
from mindspore_serving.server.register._trace import Trace

BUILTINS = {"argmax_cpp": 1}  # name: number of inputs

# What a function is given in a call.
INSTANCE, TUPLE, STACKED = "one instance", "a tuple of instances", "stacked arrays"


class MethodBody:
    """A method's body while it is traced. It uses either the calls with one place each in a method, or add_stage."""

    def __init__(self, registration: Registration, trace: Trace) -> None:
        self.registration = registration
        self.trace = trace
        self.called: list[str] = []  # call_preprocess, call_servable, call_postprocess
        self.adds_stages = False

    def refuse_mix(self, call: str) -> NoReturn:
        """Neither face's rules hold for a method that uses both."""
        raise RuntimeError(
            f"Method '{self.trace.method_name}' mixes {call} with add_stage: use add_stage for all of its stages, or "
            "for none"
        )


current_body: ContextVar[MethodBody | None] = ContextVar("traced method body", default=None)


def require_body(call: str) -> MethodBody:
    """The body that is being traced.

    Args:
        call: The register function that asks, for the message.

    Raises:
        RuntimeError: None is.
    """
    body = current_body.get()
    if body is None:
        raise RuntimeError(f"{call} should be called in the body of a function decorated with register_method")
    return body


def find_function(registration: Registration, name: str, call: str, *, builtins: bool) -> Callable[..., Any]:
    """The function that was used before under this name."""
    function = registration.functions.get(name)
    if function is None:
        known = ", ".join([*registration.functions, *(BUILTINS if builtins else ())])
        raise RuntimeError(f"{call} does not know a function named '{name}'; known are: {known or 'none'}")
    return function


def name_of(function: Callable[..., Any]) -> str:
    """What messages call a function."""
    return getattr(function, "__name__", type(function).__name__)


def check_arity(title: str, expected: int, given: int) -> None:
    """A built-in gets as many inputs as it takes."""
    if expected != given:
        raise RuntimeError(f"The function of {title} takes {expected} input(s), but {given} are given")


def check_accepts(title: str, function: Callable[..., Any], count: int, takes: str) -> None:
    """The function can be called with so many inputs, or with one tuple of instances."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some native functions do not tell
    try:
        signature.bind(*[None] * (1 if takes == TUPLE else count))
    except TypeError:
        given = "a tuple of instances is given" if takes == TUPLE else f"{count} are given"
        raise RuntimeError(
            f"The function of {title} takes {len(signature.parameters)} input(s), {signature}, but {given}"
        ) from None


def check_counts(registration: Registration, stage: Stage) -> None:
    """A function or sub-graph has the same number of inputs and outputs wherever it is used."""
    counts = (len(stage.inputs), stage.outputs)
    if stage.kind is StageKind.MODEL:
        known = registration.model_counts.setdefault((stage.model, stage.subgraph), counts)
        phrase = "not match old count"
    elif stage.function is not None:
        known = registration.function_counts.setdefault(id(stage.function), counts)
        phrase = "not match last registered count"
    else:
        return
    for what, now, before in zip(("inputs", "outputs"), counts, known, strict=True):
        if now != before:
            raise RuntimeError(f"The {what} count {now} of {stage.title} does {phrase} {before}")


def check_grouping(registration: Registration, title: str, function: Callable[..., Any], takes: str) -> None:
    """A function gets one instance, a tuple of them or stacked arrays: the same wherever it is used."""
    before = registration.function_takes.setdefault(id(function), (function, takes))[1]
    if before != takes:
        advice = "stack" if INSTANCE not in (takes, before) else "batch_size"
        raise RuntimeError(
            f"The function of {title} gets {takes} here and {before} where it was used before: give {advice} in all "
            "of its stages, or in none"
        )
