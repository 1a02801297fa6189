"""From what a servable_config.py registered to the native worker's models, functions and methods."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindspore_serving.server.register._registry import Method, ModelDeclaration, Registration, Stage, StageKind
from mindspore_serving.worker._stage_runner import StageRunner

if TYPE_CHECKING:
    from mindspore_serving._core import Worker
    from mindspore_serving.worker.main import StartOrder

# A grouped function of a servable whose model takes one instance a run still exists to work on many.
_GROUP_WITHOUT_BATCH = 32
_BUILTIN_IDS = {"argmax_cpp": 0}  # enum Builtin of csrc/servable/method_graph.h


class ServableStages:
    """Everything of a servable, set up in the native worker. Keep it as long as the worker runs.

    Args:
        worker: The native worker.
        order: What to load.
        registration: What the servable_config.py registered.

    Raises:
        RuntimeError: Nothing is registered, the model does not load, or it does not fit the methods.
    """

    def __init__(self, worker: Worker, order: StartOrder, registration: Registration) -> None:
        if not registration.methods:
            raise RuntimeError(
                f"There is no method registered in {os.path.join(registration.directory, 'servable_config.py')}: "
                "decorate at least one function with register.register_method"
            )
        self._worker = worker
        self._runner = StageRunner(order.servable_directory)
        self._functions: dict[int, int] = {}  # id() of a function: its number in the runner
        self._model = -1
        self._batch_size = 1
        self._infos: list[dict[str, Any]] = []
        self._kept: list[Any] = []  # what the loaded model needs to stay alive
        if registration.model is not None:
            self._load_model(order, registration.model)
            self._check_counts(registration)
        worker.set_python_stages(self._runner.capsule())
        for method in registration.methods.values():
            self._add_method(method)
        self.description: dict[str, Any] = {
            "methods": [
                {"name": method.name, "inputs": list(method.inputs), "outputs": list(method.outputs)}
                for method in registration.methods.values()
            ],
            "models": self._infos,
        }

    def _load_model(self, order: StartOrder, model: ModelDeclaration) -> None:
        files = _model_files(order, model)
        self._model, self._batch_size, self._infos = load_model(self._worker, order, model, files, self._kept)

    def _check_counts(self, registration: Registration) -> None:
        for subgraph, counts in registration.model_counts.items():
            info = self._infos[subgraph]
            for what, used in zip(("inputs", "outputs"), counts, strict=True):
                actual = len(info[what])
                if used != actual:
                    raise RuntimeError(
                        f"The {what} count {used} with which call_servable is used in the methods of servable "
                        f"'{registration.servable_name}' is not equal to the count {actual} of the model's {what} "
                        f"(subgraph {subgraph})"
                    )

    def _add_method(self, method: Method) -> None:
        self._worker.add_method(
            method.name,
            list(method.inputs),
            list(method.outputs),
            [self._native_stage(stage) for stage in method.stages],
            [(ref.stage, ref.index) for ref in method.returns],
        )

    def _native_stage(self, stage: Stage) -> dict[str, Any]:
        native: dict[str, Any] = {
            "kind": stage.kind.value,
            "subgraph": stage.subgraph,
            "inputs": [(ref.stage, ref.index) for ref in stage.inputs],
            "outputs": stage.outputs,
            "batch_size": 0,
            "tag": stage.tag,
        }
        if stage.kind is StageKind.MODEL:
            native["target"] = self._model
        elif stage.kind is StageKind.BUILTIN:
            native["target"] = _BUILTIN_IDS[stage.builtin]
        else:
            assert stage.function is not None
            key = id(stage.function)
            if key not in self._functions:
                self._functions[key] = self._runner.add(stage.function)
            native["target"] = self._functions[key]
            if stage.grouped:
                native["batch_size"] = self._batch_size if self._batch_size > 1 else _GROUP_WITHOUT_BATCH
        return native


def _model_files(order: StartOrder, model: ModelDeclaration) -> Sequence[Path]:
    if order.version_directory is None:
        raise RuntimeError(
            f"There is no valid version of servable '{order.servable_name}': "
            f"'{os.path.join(order.servable_directory, order.servable_name)}' has no directory named by a number, "
            "from 1, with the model's files in it"
        )
    files = [Path(order.version_directory, file) for file in model.files]
    for file in files:
        if not file.is_file():
            raise RuntimeError(
                f"Load model failed, servable directory: '{order.servable_directory}', servable name: "
                f"'{order.servable_name}': the model file '{file}' does not exist"
            )
    return files
