"""From the models that a servable_config.py declared to models of the native worker."""

from __future__ import annotations

import logging
import math
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindspore_serving.server.register._registry import ModelDeclaration, Registration
from mindspore_serving.worker.device_options import DeviceOptions, bind_threads

if TYPE_CHECKING:
    import numpy as np

    from mindspore_serving._core import RankAgent, Worker
    from mindspore_serving.worker.loaded_model import LoadedModel
    from mindspore_serving.worker.main import StartOrder
    from mindspore_serving.worker.session_library import TensorInfo

logger = logging.getLogger("mindspore_serving.worker")

# Rows of a run of a model whose batch dimension is dynamic: kDefaultDynamicBatch of csrc/worker/model_graph.h.
_DYNAMIC_BATCH = 64


@dataclass
class ServableModel:
    """A declared model, loaded and added to the native worker. Keep it as long as the worker runs.

    Attributes:
        declaration: What the user said of it.
        number: A stage's `target`.
        subgraphs: One for each of its files.
    """

    declaration: ModelDeclaration
    number: int
    subgraphs: list[LoadedModel]

    @property
    def fixed_batch(self) -> int:
        """The rows of a run; 0: it has no batch dimension; -1: any number."""
        return max(loaded.batch_size for loaded in self.subgraphs)

    @property
    def max_batch(self) -> int:
        """The most instances of a run, at least 1."""
        return _DYNAMIC_BATCH if self.fixed_batch < 0 else max(self.fixed_batch, 1)


def load_models(worker: Worker, order: StartOrder, registration: Registration) -> list[ServableModel]:
    """Load every declared model, in the order of their declarations.

    Args:
        worker: The native worker.
        order: What to load.
        registration: What the servable_config.py registered.

    Raises:
        RuntimeError: A model does not load, or does not fit the methods.
    """
    check_not_distributed(order, registration)
    threads = max((model.context.thread_num or 0 for model in registration.models if model.context), default=0)
    bind_threads(registration.models)
    options = DeviceOptions()
    models = [_load_model(worker, order, declaration, options, threads) for declaration in registration.models]
    check_counts(registration, models)
    return models


def describe_models(models: Iterable[ServableModel]) -> list[dict[str, Any]]:
    """What the server is told of the models, one entry for each file."""
    return [_describe(loaded) for model in models for loaded in model.subgraphs]


def _load_model(
    worker: Worker, order: StartOrder, model: ModelDeclaration, options: DeviceOptions, threads: int
) -> ServableModel:
    files = _model_files(order, model)
    load = _load_om if model.model_format == "om" else _load_mindir
    with _told_with_servable(order):
        loaded, sessions = load(worker, order, model, files, options, threads)
        without_batch = model.without_batch_dim_inputs if model.with_batch_dim else ()
        largest = max(one.batch_size for one in loaded)
        wait_us = math.ceil(model.max_batch_wait_ms * 1000)
        number = worker.add_model(sessions, model.with_batch_dim, list(without_batch), max(largest, 0), wait_us)
    return ServableModel(model, number, loaded)


def _load_mindir(
    worker: Worker,
    order: StartOrder,
    model: ModelDeclaration,
    files: Sequence[Path],
    options: DeviceOptions,
    threads: int,
) -> tuple[list[LoadedModel], list[int]]:
    from mindspore_serving.worker.mindspore_model import load_model  # MindSpore only for servables with a MindIR

    told = False

    def on_device(device: str) -> None:
        nonlocal told
        if not told:  # once for all files of the model
            options.apply(model, device)
        told = True

    loaded = [
        load_model(
            str(file),
            with_batch_dim=model.with_batch_dim,
            without_batch_dim_inputs=model.without_batch_dim_inputs,
            decrypt=None if order.dec_mode is None else partial(worker.decrypt, mode=order.dec_mode),
            device_type=order.device_type,
            device_id=order.device_id or 0,
            kernel_threads=threads,
            on_device=on_device,
        )
        for file in files
    ]
    return loaded, [open_session(worker, one) for one in loaded]


def _load_om(
    worker: Worker,
    order: StartOrder,
    model: ModelDeclaration,
    files: Sequence[Path],
    options: DeviceOptions,
    threads: int,
) -> tuple[list[LoadedModel], list[int]]:
    from mindspore_serving.worker.om_model import load_om_model

    options.apply(model, "OM")
    if order.dec_mode is not None:
        logger.warning("dec_key is not used for the OM model '%s': only MindIR files can be encrypted", model.key)
    loaded = [
        load_om_model(
            worker,
            str(file),
            with_batch_dim=model.with_batch_dim,
            without_batch_dim_inputs=model.without_batch_dim_inputs,
            device_type=order.device_type,
            device_id=order.device_id or 0,
        )
        for file in files
    ]
    return [one for one, _ in loaded], [session for _, session in loaded]


def _load_failed(order: StartOrder) -> str:
    """How every failure to load a model begins."""
    return (
        f"Load model failed, servable directory: '{order.servable_directory}', servable name: '{order.servable_name}': "
    )


@contextmanager
def _told_with_servable(order: StartOrder) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        text = str(error).removeprefix("Load model failed, ")
        raise RuntimeError(_load_failed(order) + text) from error.__cause__


def check_not_distributed(order: StartOrder, registration: Registration) -> None:
    """Raise RuntimeError if the model is one that ranks run."""
    if any(model.ranks is not None for model in registration.models):
        raise RuntimeError(
            f"Servable '{order.servable_name}' declares a distributed model by distributed.declare_servable: start it "
            "by distributed.start_servable, not by start_servables"
        )


def check_counts(registration: Registration, models: Sequence[ServableModel]) -> None:
    """Check the numbers of inputs and outputs with which methods use the models.

    Raises:
        RuntimeError: A model has others, or a sub-graph is used that it does not have.
    """
    for (number, subgraph), counts in registration.model_counts.items():
        model = models[number]
        if subgraph >= len(model.subgraphs):  # only of a distributed model: others are checked when they are declared
            raise RuntimeError(
                f"Parameter 'subgraph' should be less than {len(model.subgraphs)}, the number of sub-graphs that the "
                f"ranks of servable '{registration.servable_name}' have loaded, but {subgraph} was given"
            )
        loaded = model.subgraphs[subgraph]
        actual_counts = (len(loaded.inputs), len(loaded.outputs))
        for what, used, actual in zip(("inputs", "outputs"), counts, actual_counts, strict=True):
            if used != actual:
                raise RuntimeError(
                    f"The {what} count {used} with which model '{model.declaration.key}' is used in the methods of "
                    f"servable '{registration.servable_name}' is not equal to the count {actual} of the model's "
                    f"{what} (subgraph {subgraph})"
                )


def open_session(worker: Worker | RankAgent, loaded: LoadedModel, *, leave_when_spoilt: bool = True) -> int:
    """Open what runs a loaded model in the native worker, or in an agent.

    Args:
        worker: Where.
        loaded: The model.
        leave_when_spoilt: End the process once MindSpore would refuse any other run because one has failed.

    Returns:
        The session's number.
    """
    if loaded.session_library is not None:
        options = loaded.session_options
        if leave_when_spoilt and "phases" in options:  # the mindspore library
            options = {**options, "leave_when_spoilt": "1"}
        return worker.open_session(str(loaded.session_library), options)
    return worker.add_python_session(
        [native_info(info) for info in loaded.inputs],
        [native_info(info) for info in loaded.outputs],
        loaded.batch_sizes,
        _leaving_when_spoilt(loaded) if leave_when_spoilt else loaded.python_run,
        loaded.way,
    )


def _leaving_when_spoilt(loaded: LoadedModel) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """The model's run, ending the process once MindSpore would refuse any other because one has failed."""
    spoilt = False

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        nonlocal spoilt
        if spoilt:
            os._exit(70)
        try:
            return loaded.python_run(inputs)
        except RuntimeError:
            spoilt = True
            print("A run of the model has failed, and MindSpore refuses every later run: leaving", flush=True)
            os.kill(os.getpid(), signal.SIGTERM)  # once the answer is out
            raise

    return run


def native_info(info: TensorInfo) -> tuple[str, int, list[int] | None]:
    """An input or output as the native worker takes it."""
    return info.name, info.dtype, None if info.dims is None else list(info.dims)


def _describe(loaded: LoadedModel) -> dict[str, Any]:
    def describe(infos: Sequence[TensorInfo]) -> list[dict[str, Any]]:
        return [{"name": info.name, "dtype": info.dtype, "dims": info.dims} for info in infos]

    return {
        "file": os.path.basename(loaded.model_file),
        "way": loaded.way,
        "batch_size": loaded.batch_size,
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
            raise RuntimeError(f"{_load_failed(order)}the model file '{file}' does not exist; {_contents(file.parent)}")
    return files


def _contents(directory: Path) -> str:
    names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    more = ", ..." if len(names) > 10 else ""
    return f"there is {', '.join(names[:10])}{more}" if names else "nothing is there"
