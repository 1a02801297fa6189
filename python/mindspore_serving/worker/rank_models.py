"""The model of a distributed servable: ranks on this and other machines run it, and what they say of it is all there is
of it here."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mindspore_serving._native import load_native
from mindspore_serving.server.distributed._agent_environment import CPU, device_type_here
from mindspore_serving.server.distributed._configuration import Configuration
from mindspore_serving.server.distributed._rank_table import check_layout, read_rank_table
from mindspore_serving.server.register._registry import ModelDeclaration, Registration
from mindspore_serving.worker.loaded_model import LoadedModel
from mindspore_serving.worker.servable_models import ServableModel, check_counts
from mindspore_serving.worker.session_library import TensorInfo

if TYPE_CHECKING:
    from mindspore_serving._core import RankServer, Worker
    from mindspore_serving.worker.main import StartOrder

logger = logging.getLogger("mindspore_serving.worker")

_POLL_SECONDS = 0.5
_PROGRESS_SECONDS = 30.0


@dataclass(frozen=True)
class RankOrder:
    """What `distributed.start_servable` was given, as the server hands it to the worker."""

    address: str
    rank_table: dict[str, Any]
    wait_agents_time_in_seconds: int
    rank_timeout_seconds: float
    certificate: str | None = None
    private_key: str | None = None
    custom_ca: str | None = None
    verify_client: bool = False


def load_rank_model(
    worker: Worker, order: StartOrder, registration: Registration, stop_asked: Callable[[], bool]
) -> tuple[ServableModel, RankServer]:
    """Wait for the ranks, and add their model to the native worker.

    Args:
        worker: The native worker.
        order: What to serve.
        registration: What the servable_config.py registered: one distributed model.
        stop_asked: Says whether the worker is to stop.

    Returns:
        The model, and where its ranks are connected to.

    Raises:
        RuntimeError: Another model is declared, the rank table does not fit it, the ranks have failed or did not come
            in time, or their model does not fit the methods.
        ConnectionError: The server said stop meanwhile.
    """
    assert order.distributed is not None
    declaration = _only_distributed(order, registration)
    ranks = RankOrder(**order.distributed)
    server = _start_server(order, ranks, declaration)
    wait_for_ranks(server, ranks.wait_agents_time_in_seconds, stop_asked)
    subgraphs = describe_subgraphs(server.describe(), declaration)
    sessions = [worker.add_rank_session(server, subgraph) for subgraph in range(len(subgraphs))]
    without_batch = declaration.without_batch_dim_inputs if declaration.with_batch_dim else ()
    largest = max(one.batch_size for one in subgraphs)
    number = worker.add_model(sessions, declaration.with_batch_dim, list(without_batch), max(largest, 0))
    model = ServableModel(declaration, number, subgraphs)
    check_counts(registration, [model])
    return model, server


def wait_for_ranks(server: RankServer, wait_seconds: float, stop_asked: Callable[[], bool]) -> None:
    """Wait until all ranks are ready, telling now and then of those that are not.

    Args:
        server: Where they come to.
        wait_seconds: For how long at most; 0: for ever.
        stop_asked: Says whether the worker is to stop.

    Raises:
        RuntimeError: They failed, or are not ready in time.
        ConnectionError: The worker is to stop.
    """
    start = time.monotonic()
    told, tell_at = "", start
    while True:
        failure = server.wait(_POLL_SECONDS)
        if failure is None:
            return
        if failure:
            raise RuntimeError(failure)
        if stop_asked():
            server.stop("the server has stopped the servable")
            raise ConnectionError("the worker was told to stop while it waited for the ranks")
        now = time.monotonic()
        progress = server.progress()
        if wait_seconds and now - start > wait_seconds:
            raise RuntimeError(
                f"The agents are not ready after wait_agents_time_in_seconds ({wait_seconds:g} seconds): {progress}"
            )
        if progress != told or now >= tell_at:
            print(f"Waiting for agents at {server.address}: {progress}", flush=True)
            told, tell_at = progress, now + _PROGRESS_SECONDS


def describe_subgraphs(ranks: list[dict[str, Any]], declaration: ModelDeclaration) -> list[LoadedModel]:
    """What the ranks say of their models, as one model: inputs as rank 0 takes them, outputs as the last rank gives.

    Raises:
        RuntimeError: The model cannot be served as it is declared.
    """
    ranks = sorted(ranks, key=lambda rank: int(rank["rank"]))
    first, last = ranks[0]["models"], ranks[-1]["models"]
    group = declaration.ranks
    overlap = ", stages overlap" if group is not None and group.enable_pipeline_infer and group.stage_size > 1 else ""
    subgraphs: list[LoadedModel] = []
    for inputs_of, outputs_of in zip(first, last, strict=True):
        model = LoadedModel(
            os.path.basename(str(inputs_of["file"])),
            _infos(inputs_of["inputs"]),
            _infos(outputs_of["outputs"]),
            way=f"{len(ranks)} ranks, {_ways(ranks, len(subgraphs))}{overlap}",
            without_batch=declaration.without_batch_dim_inputs,
        )
        model.find_batch_size(declaration.with_batch_dim)
        if model.batch_size > 0:
            model.batch_sizes = list(inputs_of["batch_sizes"]) or [model.batch_size]
            _check_outputs(model, int(ranks[-1]["rank"]))
        subgraphs.append(model)
    return subgraphs


def _check_outputs(model: LoadedModel, rank: int) -> None:
    if any(output.dims is None or output.dims[:1] != (model.batch_size,) for output in model.outputs):
        shapes = ", ".join(str(list(output.dims or ())) for output in model.outputs)
        raise RuntimeError(
            f"Load model failed, {model.model_file}: with_batch_dim is True and the batch size of its inputs is "
            f"{model.batch_size}, but its outputs on rank {rank} are of {shapes}"
        )


def _ways(ranks: list[dict[str, Any]], subgraph: int) -> str:
    return " and ".join(dict.fromkeys(str(rank["models"][subgraph]["way"]) for rank in ranks))


def _infos(described: list[Any]) -> list[TensorInfo]:
    infos = []
    for one in described:
        name, dtype, dims = (one["name"], one["dtype"], one["dims"]) if isinstance(one, dict) else one
        infos.append(TensorInfo(name, dtype, None if dims is None else tuple(dims)))
    return infos


def _only_distributed(order: StartOrder, registration: Registration) -> ModelDeclaration:
    path = Path(registration.directory, "servable_config.py")
    if not registration.models:
        raise RuntimeError(
            f"There is no model declared in {path}: call distributed.declare_servable, which "
            "distributed.start_servable needs"
        )
    (declaration, *_) = registration.models
    if declaration.ranks is None:
        raise RuntimeError(
            f"{path} declares its model by {declaration.declared_by}, but distributed.start_servable starts "
            f"distributed models: declare it by distributed.declare_servable, or start servable "
            f"'{order.servable_name}' by start_servables"
        )
    return declaration


def _start_server(order: StartOrder, ranks: RankOrder, declaration: ModelDeclaration) -> RankServer:
    group = declaration.ranks
    assert group is not None
    table = read_rank_table(ranks.rank_table, "given to start_servable")
    check_layout(table, group.rank_size, group.stage_size, ascend=device_type_here(order.device_type) != CPU)
    if group.enable_pipeline_infer and group.stage_size == 1:
        logger.warning(
            "enable_pipeline_infer of servable '%s' has no effect: its model has one stage, which takes one run at a "
            "time",
            order.servable_name,
        )
    configuration = Configuration(
        servable_name=order.servable_name,
        version=order.version,
        rank_size=group.rank_size,
        stage_size=group.stage_size,
        with_batch_dim=declaration.with_batch_dim,
        without_batch_dim_inputs=declaration.without_batch_dim_inputs,
        enable_pipeline_infer=group.enable_pipeline_infer,
        device_type=order.device_type,
        rank_table=table,
    )
    core = cast(Any, load_native("_core"))
    options = {"rank_timeout_s": ranks.rank_timeout_seconds}
    return cast(
        "RankServer",
        core.RankServer(
            ranks.address,
            group.rank_size,
            group.stage_size,
            configuration.to_json(),
            ranks.certificate,
            ranks.private_key,
            ranks.custom_ca,
            ranks.verify_client,
            options,
            pipeline=group.enable_pipeline_infer,
        ),
    )
