"""Names of release 1.2. ``mindspore_serving.server.distributed`` has what replaces them."""

from __future__ import annotations

from mindspore_serving.server import _legacy, _server
from mindspore_serving.server import distributed as _distributed
from mindspore_serving.server.register._model import Model

__all__ = ["declare_distributed_servable", "start_distributed_servable_in_master", "startup_worker_agents"]


def declare_distributed_servable(
    rank_size: int,
    stage_size: int,
    with_batch_dim: bool = True,
    without_batch_dim_inputs: int | list[int] | tuple[int, ...] | None = None,
) -> Model:
    """Declare a distributed model: `server.distributed.declare_servable`.

    Args:
        rank_size (int): The number of ranks.
        stage_size (int): The number of stages; rank_size is a multiple of it.
        with_batch_dim (bool, optional): Whether the first dimension of inputs and outputs is the batch. Default: True.
        without_batch_dim_inputs (Union[int, list[int], tuple[int]], optional): The indexes of inputs that have no
            batch dimension although `with_batch_dim` is True. Default: None.

    Returns:
        Model, as `server.distributed.declare_servable`.

    Raises:
        RuntimeError: As `server.distributed.declare_servable`.
    """
    _legacy.warn("worker.distributed.declare_distributed_servable", "server.distributed.declare_servable")
    return _distributed.declare_servable(rank_size, stage_size, with_batch_dim, without_batch_dim_inputs)


def start_distributed_servable_in_master(
    servable_directory: str,
    servable_name: str,
    rank_table_json_file: str,
    version_number: int = 1,
    worker_ip: str = "0.0.0.0",
    worker_port: int = 6200,
    wait_agents_time_in_seconds: int = 0,
) -> None:
    """Start a distributed servable: `server.distributed.start_servable` with the address in two parts.

    Args:
        servable_directory (str): The directory that holds the servable's directory.
        servable_name (str): The servable's name.
        rank_table_json_file (str): The rank table.
        version_number (int, optional): The version; 0 means 1. Default: 1.
        worker_ip (str, optional): The address on which the worker waits for the agents. Default: "0.0.0.0".
        worker_port (int, optional): Its port, 1 to 65535. Default: 6200.
        wait_agents_time_in_seconds (int, optional): How long to wait for the agents; 0 means without limit. Default: 0.

    Raises:
        RuntimeError: As `server.distributed.start_servable`.
    """
    _legacy.warn("worker.distributed.start_distributed_servable_in_master", "server.distributed.start_servable")
    with _server.StopOnError() as call:
        call.stop_on_error = not _server.servables_run()
        address = _legacy.join_address(worker_ip, "worker_port", worker_port, "worker_ip")
        _distributed.start_servable(
            servable_directory,
            servable_name,
            rank_table_json_file,
            version_number,
            address,
            wait_agents_time_in_seconds,
        )


def startup_worker_agents(
    worker_ip: str,
    worker_port: int,
    model_files: list[str] | tuple[str, ...],
    group_config_files: list[str] | tuple[str, ...] | None = None,
    agent_start_port: int = 7000,
    agent_ip: str | None = None,
    rank_start: int | None = None,
) -> None:
    """Start all ranks of this machine: `server.distributed.startup_agents` with the address in two parts.

    Args:
        worker_ip (str): The distributed worker's address.
        worker_port (int): Its port, 1 to 65535.
        model_files (Union[list[str], tuple[str]]): One model file for each rank of this machine.
        group_config_files (Union[list[str], tuple[str]], optional): One group configuration file for each rank of this
            machine. Default: None.
        agent_start_port (int, optional): The first of the ports that this machine opens for the ranks. Default: 7000.
        agent_ip (str, optional): This machine's address; given together with `rank_start`. Default: None.
        rank_start (int, optional): The first rank of this machine; given together with `agent_ip`. Default: None.

    Raises:
        RuntimeError: As `server.distributed.startup_agents`.
    """
    _legacy.warn("worker.distributed.startup_worker_agents", "server.distributed.startup_agents")
    address = _legacy.join_address(worker_ip, "worker_port", worker_port, "worker_ip")
    _distributed.startup_agents(address, model_files, group_config_files, agent_start_port, agent_ip, rank_start)
