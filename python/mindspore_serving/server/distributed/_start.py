"""Starting the serving side of a distributed servable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindspore_serving.server import _checks, _launch, _server
from mindspore_serving.server._servable_config import ServableStartConfig
from mindspore_serving.server._ssl import SSLConfig
from mindspore_serving.server.distributed._agent_files import script_directory
from mindspore_serving.server.distributed._rank_table import RankTable, load_rank_table

_MAX_WAIT_SECONDS = 86_400 * 365
_MAX_RANK_SECONDS = 86_400.0


def start_servable(
    servable_directory: str,
    servable_name: str,
    rank_table_json_file: str,
    version_number: int = 1,
    distributed_address: str = "0.0.0.0:6200",
    wait_agents_time_in_seconds: int = 0,
    *,
    device_type: str | None = None,
    ssl_config: SSLConfig | None = None,
    rank_timeout_seconds: float = 10.0,
) -> None:
    """Start a servable whose model is declared by `declare_servable`, and wait until requests reach it.

    It gets one worker process, the distributed worker, which listens on `distributed_address`. The ranks of the model
    are started by `startup_agents` on their machines, before or after this call, and connect to it. There is no model
    file and no version directory on this side. The worker's output goes to ``serving_logs`` in the current working
    directory, where it also tells which ranks are not there yet. When the call returns, all ranks are ready, and the
    script keeps running after its last line until SIGINT (Ctrl+C), SIGTERM or `server.stop`.

    When a rank, a launcher, the worker or the network between them fails, requests that are being worked on fail, the
    ranks end, and the servable is back as soon as all ranks are.

    Args:
        servable_directory (str): The directory that holds the servable's directory, absolute or relative to the
            current working directory.
        servable_name (str): The servable's name, which is its directory's name.
        rank_table_json_file (str): The rank table: a JSON file that says on which machine and device each rank runs;
            absolute, or relative to the start-up script.
        version_number (int, optional): The version number under which clients see the servable; 0 means 1.
            Default: 1.
        distributed_address (str, optional): ``ip:port`` on which the worker waits for the agents.
            Default: "0.0.0.0:6200".
        wait_agents_time_in_seconds (int, optional): How long to wait until all agents are ready; 0 means without
            limit. Default: 0.
        device_type (str, optional): What the ranks run on: "Ascend" or "CPU" in any spelling of upper and lower case;
            None takes Ascend where there is one, otherwise CPU. Default: None.
        ssl_config (SSLConfig, optional): How connections of agents are encrypted; None means not at all.
            Default: None.
        rank_timeout_seconds (float, optional): How long a rank may work on one run, above 0; a rank that takes longer
            has failed. Default: 10.0.

    Raises:
        RuntimeError: The type or value of a parameter is invalid, the rank table cannot be used, the servable is not
            distributed, the address cannot be listened on, or the agents have failed or are not ready in time. If
            nothing ran before, everything that was running has been stopped.

    Examples:
        >>> import os
        >>> from mindspore_serving import server
        >>> from mindspore_serving.server import distributed
        >>>
        >>> servable_dir = os.path.abspath(".")
        >>> distributed.start_servable(servable_dir, "matmul", rank_table_json_file="hccl_8p.json",
        ...                            distributed_address="127.0.0.1:6200")
        >>> server.start_grpc_server("0.0.0.0:5500")  # press Ctrl+C to stop
    """
    with _server.StopOnError() as call:
        call.stop_on_error = not _server.servables_run()
        settings = check_settings(
            servable_directory,
            servable_name,
            rank_table_json_file,
            version_number,
            distributed_address,
            wait_agents_time_in_seconds,
            device_type,
            ssl_config,
            rank_timeout_seconds,
        )
        directory = _launch.find_servable_directory(settings.config)
        _server.start_planned(
            lambda log_directory: [plan(settings, directory, log_directory)], later=not call.stop_on_error
        )


@dataclass(frozen=True)
class StartSettings:
    """The parameters of `start_servable`, checked."""

    config: ServableStartConfig
    rank_table: RankTable
    address: str
    wait_seconds: int
    ssl_config: SSLConfig | None
    rank_timeout_seconds: float


def check_settings(
    servable_directory: Any,
    servable_name: Any,
    rank_table_json_file: Any,
    version_number: Any,
    distributed_address: Any,
    wait_agents_time_in_seconds: Any,
    device_type: Any,
    ssl_config: Any,
    rank_timeout_seconds: Any,
) -> StartSettings:
    """The checks of `start_servable`."""
    version = _checks.check_int("version_number", version_number)
    config = ServableStartConfig(
        servable_directory, servable_name, version_number=version or 1, device_type=device_type
    )
    if config.device_type == "GPU":
        raise RuntimeError("Parameter 'device_type' should be 'Ascend', 'CPU' or None, but 'GPU' was given")
    table_file = _checks.check_str("rank_table_json_file", rank_table_json_file)
    address = _checks.check_str("distributed_address", distributed_address)
    _checks.check_ip_address(address, "distributed_address")
    wait = _checks.check_int("wait_agents_time_in_seconds", wait_agents_time_in_seconds, 0, _MAX_WAIT_SECONDS)
    if ssl_config is not None and not isinstance(ssl_config, SSLConfig):
        raise RuntimeError(
            f"Parameter 'ssl_config' should be server.SSLConfig or None, but a {type(ssl_config).__name__} was given"
        )
    timeout = _checks.check_seconds("rank_timeout_seconds", rank_timeout_seconds, 0.001, _MAX_RANK_SECONDS)
    try:
        table = load_rank_table(script_directory() / table_file)  # an absolute one stays as it is
    except RuntimeError as error:
        text = str(error)
        raise RuntimeError(f"Parameter 'rank_table_json_file': {text[0].lower()}{text[1:]}") from error.__cause__
    return StartSettings(config, table, address, wait, ssl_config, timeout)


def plan(settings: StartSettings, directory: Path, log_directory: Path) -> _launch.ServablePlan:
    """The one worker of a distributed servable, and what it is told."""
    tls = settings.ssl_config
    distributed = {
        "address": settings.address,
        "rank_table": settings.rank_table.content,
        "wait_agents_time_in_seconds": settings.wait_seconds,
        "rank_timeout_seconds": settings.rank_timeout_seconds,
        "certificate": None if tls is None else str(Path(tls.certificate).absolute()),
        "private_key": None if tls is None else str(Path(tls.private_key).absolute()),
        "custom_ca": None if tls is None or tls.custom_ca is None else str(Path(tls.custom_ca).absolute()),
        "verify_client": tls is not None and tls.verify_client,
    }
    return _launch.plan_distributed(settings.config, directory, distributed, log_directory)
