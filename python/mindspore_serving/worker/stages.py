"""From what a servable_config.py registered to the native worker's models, functions and methods."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mindspore_serving.server.register import _calls
from mindspore_serving.server.register._registry import Method, Registration, Stage, StageKind
from mindspore_serving.worker._stage_runner import StageRunner
from mindspore_serving.worker.nested_calls import NestedCalls
from mindspore_serving.worker.remote_models import declare_remote_models
from mindspore_serving.worker.servable_models import ServableModel, describe_models, load_models

if TYPE_CHECKING:
    from mindspore_serving._core import RankServer, Worker
    from mindspore_serving.worker.main import StartOrder

# A pipeline function of a servable whose model takes one instance a run still exists to work on many.
_GROUP_WITHOUT_BATCH = 32
# More instances than this are never in a worker at once: ExecutorOptions of csrc/worker/executor.h.
_MAX_GROUP = 4096
_BUILTIN_IDS = {"argmax_cpp": 0}  # enum Builtin of csrc/servable/method_graph.h


class ServableStages:
    """Everything of a servable, set up in the native worker. Keep it as long as the worker runs.

    Args:
        worker: The native worker.
        order: What to load.
        registration: What the servable_config.py registered.
        stop_asked: Says whether the worker is to stop, for what waits long.

    Attributes:
        description: What the server is told.
        ranks: What the ranks of a distributed servable are connected to.

    Raises:
        RuntimeError: Nothing is registered, a model does not load, or it does not fit the methods.
    """

    def __init__(
        self,
        worker: Worker,
        order: StartOrder,
        registration: Registration,
        stop_asked: Callable[[], bool] = lambda: False,
    ) -> None:
        if not registration.methods and not registration.pipelines:
            raise RuntimeError(
                f"There is no method registered in {os.path.join(registration.directory, 'servable_config.py')}: "
                "decorate at least one function with register.register_method"
            )
        self._worker = worker
        self._runner = StageRunner(order.servable_directory)
        self._functions: dict[int, int] = {}  # id() of a function: its number in the runner
        self.ranks: RankServer | None = None
        if order.distributed is not None:
            from mindspore_serving.worker.rank_models import load_rank_model

            model, self.ranks = load_rank_model(worker, order, registration, stop_asked)
            self._models = [model]
        else:
            load = declare_remote_models if order.extra else load_models
            self._models = load(worker, order, registration)
        worker.set_python_stages(self._runner.capsule())
        public = registration.pipelines or registration.methods
        self._add_methods(order, registration, public)
        if order.has_extra_workers and not order.extra:
            worker.serve_extra_workers()
        self.description: dict[str, Any] = {
            "methods": [
                {
                    "name": method.name,
                    "inputs": list(method.inputs),
                    "outputs": list(method.outputs),
                    "stages": [stage.kind.value for stage in method.stages],
                }
                for method in public.values()
            ],
            "models": describe_models(self._models),
            # How closely the server must look at the clock.
            "shortest_timeout_s": min(
                (method.timeout_seconds for method in public.values() if method.timeout_seconds), default=0.0
            ),
        }

    def _add_methods(self, order: StartOrder, registration: Registration, public: dict[str, Method]) -> None:
        calls = NestedCalls(self._worker, order.servable_name, order.version)
        numbers = {name: self._add_method(method) for name, method in public.items()}
        # What users' functions call but clients do not comes after what clients call.
        if public is not registration.methods:
            numbers = {name: self._add_method(method, internal=True) for name, method in registration.methods.items()}
        for name, method in registration.methods.items():
            calls.add_method(method, numbers[name])
        for model in self._models if self._functions else ():
            calls.add_model(model)
        _calls.set_running(calls)

    def _add_method(self, method: Method, internal: bool = False) -> int:
        return self._worker.add_method(
            method.name,
            list(method.inputs),
            list(method.outputs),
            [self._native_stage(method, stage) for stage in method.stages],
            [(ref.stage, ref.index) for ref in method.returns],
            internal=internal,
            timeout_s=method.timeout_seconds or 0.0,
        )

    def _native_stage(self, method: Method, stage: Stage) -> dict[str, Any]:
        native: dict[str, Any] = {
            "kind": stage.kind.value,
            "subgraph": stage.subgraph,
            "inputs": [(ref.stage, ref.index) for ref in stage.inputs],
            "outputs": stage.outputs,
            "batch_size": 0,
            "tag": stage.tag,
            "failure": stage.failure,
        }
        if stage.kind is StageKind.MODEL:
            native["target"] = self._models[stage.model].number
        elif stage.kind is StageKind.BUILTIN:
            native["target"] = _BUILTIN_IDS[stage.builtin]
        else:
            assert stage.function is not None
            key = id(stage.function)
            if key not in self._functions:
                self._functions[key] = self._runner.add(stage.function)
            native["target"] = self._functions[key]
            if stage.grouped:
                native["batch_size"] = group_size(method, stage, self._models)
                native["stacked"] = stage.stacked
            if stage.alone:
                native["at_once"] = 1
                native["concurrency"] = stage.concurrency
        return native


def group_size(method: Method, stage: Stage, models: Sequence[ServableModel]) -> int:
    """The most instances that a call of a grouped stage's function gets.

    Args:
        method: The stage's method.
        stage: A stage whose function takes a tuple of instances.
        models: The servable's models.
    """
    if stage.batch_size is None:
        largest = max((model.fixed_batch for model in models), default=0)
        return largest if largest > 1 else _GROUP_WITHOUT_BATCH
    if stage.batch_size > 0:
        return min(stage.batch_size, _MAX_GROUP)
    batches = [models[other.model].max_batch for other in method.stages if other.kind is StageKind.MODEL]
    if not batches:
        return 1
    reads_inputs_alone = all(ref.stage == 0 for ref in stage.inputs)
    return min(batches) if reads_inputs_alone else max(batches)
