"""Calls that users' functions make while they run: methods by name, models by declaration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mindspore_serving.server.register._registry import Method, ModelDeclaration
from mindspore_serving.worker.servable_models import ServableModel

if TYPE_CHECKING:
    from mindspore_serving._core import Worker


@dataclass(frozen=True)
class _Target:
    number: int  # of the native method
    inputs: int
    title: str  # for messages


class NestedCalls:
    """Runs methods and models on the native worker (register/_calls.py says what users' side expects). Fill it before
    the worker runs; then any thread.

    Args:
        worker: The native worker.
        servable_name: The servable that it serves.
        version: And its version.
    """

    def __init__(self, worker: Worker, servable_name: str, version: int) -> None:
        self._worker = worker
        self._servable_name = servable_name
        self._version = version
        self._methods: dict[str, _Target] = {}
        self._models: dict[tuple[int, int], _Target] = {}  # by id() of the declaration, and sub-graph

    def add_method(self, method: Method, number: int) -> None:
        """Make a method callable that has this number in the native worker."""
        title = f"method '{method.name}' of servable '{self._servable_name}'"
        self._methods[method.name] = _Target(number, len(method.inputs), title)

    def add_model(self, model: ServableModel) -> None:
        """Make a model callable: each sub-graph is a method of one stage that clients do not see.

        Args:
            model: The model, which is in the native worker already.
        """
        for subgraph, graph in enumerate(model.subgraphs):
            inputs, outputs = len(graph.inputs), len(graph.outputs)
            title = f"model '{model.declaration.title_of(subgraph)}'"
            number = self._worker.add_method(
                f"@{model.number}/{subgraph}",
                [f"x{i}" for i in range(inputs)],
                [f"y{i}" for i in range(outputs)],
                [
                    {
                        "kind": "model",
                        "target": model.number,
                        "subgraph": subgraph,
                        "inputs": [(0, i) for i in range(inputs)],
                        "outputs": outputs,
                    }
                ],
                [(1, i) for i in range(outputs)],
                internal=True,
            )
            self._models[id(model.declaration), subgraph] = _Target(number, inputs, title)

    def run_method(
        self, servable_name: str, method: str, version_number: int, instances: Sequence[tuple[Any, ...]]
    ) -> list[tuple[Any, ...]]:
        """Run a registered method; the outputs of each instance."""
        if servable_name != self._servable_name or version_number not in (0, self._version):
            version = f" version {version_number}" if version_number else ""
            raise RuntimeError(
                f"PipelineServable: servable '{servable_name}'{version} is not available in this worker, which runs "
                f"'{self._servable_name}' version {self._version}"
            )
        target = self._methods.get(method)
        if target is None:
            raise RuntimeError(
                f"PipelineServable: method '{method}' is not available; servable '{servable_name}' has "
                f"{', '.join(self._methods) or 'no methods'}"
            )
        return self._run(target, instances)

    def call_model(
        self, declaration: ModelDeclaration, subgraph: int, instances: Sequence[tuple[Any, ...]]
    ) -> list[tuple[Any, ...]]:
        """Run a sub-graph of a model; the outputs of each instance."""
        target = self._models.get((id(declaration), subgraph))
        if target is None:
            raise RuntimeError(f"Model '{declaration.title_of(subgraph)}' is not loaded in this worker")
        return self._run(target, instances)

    def _run(self, target: _Target, instances: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        if not instances:
            raise RuntimeError(f"A call of {target.title} needs at least one instance, but the list is empty")
        many = len(instances) > 1
        converted = []
        for i, instance in enumerate(instances):
            where = f"instance {i} of the call of {target.title}" if many else f"the call of {target.title}"
            if len(instance) != target.inputs:
                raise RuntimeError(f"{_upper(where)} needs {target.inputs} input(s), but {len(instance)} are given")
            converted.append(tuple(_to_value(value, f"input {k} of {where}") for k, value in enumerate(instance)))
        outputs: list[tuple[Any, ...]] = []
        for i, outcome in enumerate(self._worker.call_method(target.number, converted)):
            if isinstance(outcome, RuntimeError):
                where = f"instance {i} of the call of {target.title}" if many else f"the call of {target.title}"
                raise RuntimeError(f"{_upper(where)} failed: {outcome}")
            outputs.append(outcome)
        return outputs


def _to_value(value: Any, what: str) -> Any:
    """What the native worker takes: str, bytes, or a C-contiguous array of one of its types."""
    if isinstance(value, (str, bytes)):
        return value
    if value is None:
        raise RuntimeError(f"{_upper(what)} is None")
    try:
        array = np.asarray(value.asnumpy() if hasattr(value, "asnumpy") else value)
    except Exception as error:
        raise RuntimeError(f"{_upper(what)}, a {type(value).__name__}, is no array: {error}") from None
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise RuntimeError(f"{_upper(what)} has dtype {array.dtype}; use bool, int, uint or float, str or bytes")
    if array.flags.c_contiguous and array.dtype.isnative:
        return array
    return np.array(array, dtype=array.dtype.newbyteorder("="), order="C")


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
