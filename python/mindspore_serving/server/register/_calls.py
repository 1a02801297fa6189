"""What calls from users' functions reach: the running worker, once there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mindspore_serving.server.register._registry import ModelDeclaration


class Calls(Protocol):
    """Runs methods and models for users' functions. Any thread."""

    def run_method(
        self, servable_name: str, method: str, version_number: int, instances: Sequence[tuple[Any, ...]]
    ) -> list[tuple[Any, ...]]:
        """Run a registered method; the outputs of each instance. RuntimeError if one fails."""
        ...

    def call_model(
        self, declaration: ModelDeclaration, subgraph: int, instances: Sequence[tuple[Any, ...]]
    ) -> list[tuple[Any, ...]]:
        """Run a sub-graph of a model; the outputs of each instance. RuntimeError if one fails."""
        ...


_running: Calls | None = None


def set_running(calls: Calls | None) -> None:
    """The worker says that it can be called; None: no longer."""
    global _running
    _running = calls


def running(caller: str) -> Calls:
    """The worker.

    Args:
        caller: What the user called, for the message.

    Raises:
        RuntimeError: Nothing is being served.
    """
    if _running is None:
        raise RuntimeError(
            f"{caller} should be called from a function of the running servable: a pipeline, or a function that a "
            "method calls. While servable_config.py is being imported no model is loaded yet"
        )
    return _running


def unwrap(outputs: tuple[Any, ...]) -> Any:
    """One output comes bare."""
    return outputs[0] if len(outputs) == 1 else outputs
