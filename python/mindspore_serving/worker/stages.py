"""From what a servable_config.py registered to the native worker's models, functions and methods."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindspore_serving.server.register import _calls
from mindspore_serving.server.register._registry import Method, ModelDeclaration, Registration, Stage, StageKind
from mindspore_serving.worker._stage_runner import StageRunner
from mindspore_serving.worker.nested_calls import NestedCalls

if TYPE_CHECKING:
    from mindspore_serving._core import Worker
    from mindspore_serving.worker.main import StartOrder
    from mindspore_serving.worker.mindspore_model import LoadedModel
    from mindspore_serving.worker.session_library import TensorInfo

logger = logging.getLogger("mindspore_serving.worker")

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
        if not registration.methods and not registration.pipelines:
            raise RuntimeError(
                f"There is no method registered in {os.path.join(registration.directory, 'servable_config.py')}: "
                "decorate at least one function with register.register_method"
            )
        self._worker = worker
        self._runner = StageRunner(order.servable_directory)
        self._functions: dict[int, int] = {}  # id() of a function: its number in the runner
        self._model = -1
        self._group_size = _GROUP_WITHOUT_BATCH
        self._loaded: list[LoadedModel] = []  # sessions run what these hold
        if registration.model is not None:
            self._load_model(order, registration.model)
            self._check_counts(registration)
        worker.set_python_stages(self._runner.capsule())
        public = registration.pipelines or registration.methods
        self._add_methods(order, registration, public)
        self.description: dict[str, Any] = {
            "methods": [
                {"name": method.name, "inputs": list(method.inputs), "outputs": list(method.outputs)}
                for method in public.values()
            ],
            "models": [_describe(loaded) for loaded in self._loaded],
        }

    def _load_model(self, order: StartOrder, model: ModelDeclaration) -> None:
        files = _model_files(order, model)
        if model.model_format != "mindir":
            raise RuntimeError(
                f"Load model failed, servable directory: '{order.servable_directory}', servable name: "
                f"'{order.servable_name}': this build has no session library for the format '{model.model_format}'; "
                "export the model as MindIR"
            )
        from mindspore_serving.worker.mindspore_model import load_model  # MindSpore only for servables with a model

        if model.options is not None:
            logger.warning("%s of declare_servable have no effect on this device", model.options)
        sessions = []
        for file in files:
            loaded = load_model(
                str(file),
                with_batch_dim=model.with_batch_dim,
                without_batch_dim_inputs=model.without_batch_dim_inputs,
                dec_key=order.dec_key,
                dec_mode=order.dec_mode,
                device_type=order.device_type,
                device_id=order.device_id,
            )
            self._loaded.append(loaded)
            sessions.append(_open_session(self._worker, loaded))
        largest = max(loaded.batch_size for loaded in self._loaded)
        if largest > 1:
            self._group_size = largest
        without_batch = model.without_batch_dim_inputs if model.with_batch_dim else ()
        self._model = self._worker.add_model(sessions, model.with_batch_dim, list(without_batch), max(largest, 0))

    def _check_counts(self, registration: Registration) -> None:
        for subgraph, counts in registration.model_counts.items():
            loaded = self._loaded[subgraph]
            actual_counts = (len(loaded.inputs), len(loaded.outputs))
            for what, used, actual in zip(("inputs", "outputs"), counts, actual_counts, strict=True):
                if used != actual:
                    raise RuntimeError(
                        f"The {what} count {used} with which call_servable is used in the methods of servable "
                        f"'{registration.servable_name}' is not equal to the count {actual} of the model's {what} "
                        f"(subgraph {subgraph})"
                    )

    def _add_methods(self, order: StartOrder, registration: Registration, public: dict[str, Method]) -> None:
        calls = NestedCalls(self._worker, order.servable_name, order.version)
        numbers = {name: self._add_method(method) for name, method in public.items()}
        # What users' functions call but clients do not comes after what clients call.
        if public is not registration.methods:
            numbers = {name: self._add_method(method, internal=True) for name, method in registration.methods.items()}
        for name, method in registration.methods.items():
            calls.add_method(method, numbers[name])
        if registration.model is not None and self._functions:
            calls.add_model(registration.model, self._model, self._loaded)
        _calls.set_running(calls)

    def _add_method(self, method: Method, internal: bool = False) -> int:
        return self._worker.add_method(
            method.name,
            list(method.inputs),
            list(method.outputs),
            [self._native_stage(stage) for stage in method.stages],
            [(ref.stage, ref.index) for ref in method.returns],
            internal=internal,
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
                native["batch_size"] = self._group_size
            if stage.alone:
                native["at_once"] = 1
        return native


def _open_session(worker: Worker, loaded: LoadedModel) -> int:
    if loaded.session_library is not None:
        return worker.open_session(str(loaded.session_library), loaded.session_options)
    return worker.add_python_session(
        [_native_info(info) for info in loaded.inputs],
        [_native_info(info) for info in loaded.outputs],
        loaded.batch_sizes,
        loaded.python_run,
        loaded.way,
    )


def _native_info(info: TensorInfo) -> tuple[str, int, list[int] | None]:
    return info.name, info.dtype, None if info.dims is None else list(info.dims)


def _describe(loaded: LoadedModel) -> dict[str, Any]:
    def describe(infos: Sequence[TensorInfo]) -> list[dict[str, Any]]:
        return [{"name": info.name, "dtype": info.dtype, "dims": info.dims} for info in infos]

    return {
        "file": os.path.basename(loaded.model_file),
        "way": loaded.way,
        "batch_sizes": loaded.batch_sizes,
        "inputs": describe(loaded.inputs),
        "outputs": describe(loaded.outputs),
    }


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
