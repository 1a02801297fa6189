"""The models of an extra worker: device workers run them, and their description is all there is of them here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mindspore_serving.server.register._registry import ModelDeclaration, Registration
from mindspore_serving.worker.loaded_model import LoadedModel
from mindspore_serving.worker.servable_models import ServableModel, check_counts, native_info
from mindspore_serving.worker.session_library import TensorInfo

if TYPE_CHECKING:
    from mindspore_serving._core import Worker
    from mindspore_serving.worker.main import StartOrder


def declare_remote_models(worker: Worker, order: StartOrder, registration: Registration) -> list[ServableModel]:
    """Wait for a device worker's description of its models, and add them to the native worker as it gives them.

    Args:
        worker: The native worker, of an extra worker process.
        order: What to serve.
        registration: What the servable_config.py registered.

    Raises:
        RuntimeError: The device worker's models are not those that are registered here.
        ConnectionError: The server is gone, or said stop.
    """
    if not registration.models:
        return []
    described = json.loads(worker.receive_device())["models"]
    files = [file for declaration in registration.models for file in declaration.files]
    if [model["file"] for model in described] != [file.rpartition("/")[2] for file in files]:
        raise RuntimeError(
            f"The models that servable_config.py of servable '{order.servable_name}' declares here are not those of "
            "the worker that has loaded them: it should declare the same models in every process"
        )
    remaining = iter(described)
    models = [
        _declare(worker, declaration, [next(remaining) for _ in declaration.files])
        for declaration in registration.models
    ]
    check_counts(registration, models)
    return models


def _declare(worker: Worker, declaration: ModelDeclaration, described: list[dict[str, Any]]) -> ServableModel:
    subgraphs = [_subgraph(one) for one in described]
    sessions = [
        worker.add_remote_session(
            [native_info(info) for info in one.inputs],
            [native_info(info) for info in one.outputs],
            one.batch_sizes,
            one.way,
        )
        for one in subgraphs
    ]
    without_batch = declaration.without_batch_dim_inputs if declaration.with_batch_dim else ()
    largest = max(one.batch_size for one in subgraphs)
    number = worker.add_model(sessions, declaration.with_batch_dim, list(without_batch), max(largest, 0))
    return ServableModel(declaration, number, subgraphs)


def _subgraph(described: dict[str, Any]) -> LoadedModel:
    def infos(key: str) -> list[TensorInfo]:
        return [
            TensorInfo(one["name"], one["dtype"], None if one["dims"] is None else tuple(one["dims"]))
            for one in described[key]
        ]

    return LoadedModel(
        described["file"],
        infos("inputs"),
        infos("outputs"),
        batch_size=described["batch_size"],
        batch_sizes=described["batch_sizes"],
        way="device workers",
    )
