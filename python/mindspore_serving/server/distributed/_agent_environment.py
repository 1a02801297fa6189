"""What the processes of the ranks find in their environment: MindSpore's own cluster is set up by it alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mindspore_serving.server.distributed._rank_table import Rank

CPU = "CPU"
ASCEND = "Ascend"

# Of a cluster that this process itself may be part of: none of it is meant for ours.
_FOREIGN = (
    "DEVICE_ID",
    "MS_ENABLE_HCCL",
    "MS_NODE_ID",
    "MS_ROLE",
    "MS_SCHED_HOST",
    "MS_SCHED_PORT",
    "MS_WORKER_IP",
    "MS_WORKER_NUM",
    "PARA_GROUP_FILE",
    "RANK_ID",
    "RANK_SIZE",
    "RANK_TABLE_FILE",
)


@dataclass(frozen=True)
class Cluster:
    """What all processes of one life of a group have in common.

    Attributes:
        device_type: "CPU" or "Ascend".
        rank_size: The number of ranks on all machines.
        scheduler: On a CPU: "host:port" of MindSpore's scheduler.
        rank_table_file: On Ascend: the rank table as a file.
    """

    device_type: str
    rank_size: int
    scheduler: str | None = None
    rank_table_file: Path | None = None


def device_type_here(asked: str | None) -> str:
    """What ranks run on: what was asked for, otherwise Ascend where there is one, otherwise CPU."""
    if asked is not None:
        return asked
    return ASCEND if os.path.exists("/dev/davinci_manager") else CPU


def agent_environment(
    base: Mapping[str, str], cluster: Cluster, rank: Rank, ip: str, group_file: Path | None
) -> dict[str, str]:
    """The environment of a rank's process.

    Args:
        base: What every process of ours has.
        cluster: What the ranks have in common.
        rank: Which of them.
        ip: This machine's address, under which other ranks reach it.
        group_file: The rank's group configuration file.
    """
    environment = _without_cluster(base)
    if group_file is not None:
        environment["PARA_GROUP_FILE"] = str(group_file)
    if cluster.device_type == CPU:
        environment |= _scheduled(cluster)
        environment |= {"MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(rank.rank_id), "MS_WORKER_IP": ip}
    else:
        assert cluster.rank_table_file is not None
        environment |= {
            "RANK_ID": str(rank.rank_id),
            "RANK_SIZE": str(cluster.rank_size),
            "DEVICE_ID": str(rank.device_id),
            "RANK_TABLE_FILE": str(cluster.rank_table_file),
            "MS_ENABLE_HCCL": "1",
        }
    return environment


def scheduler_environment(base: Mapping[str, str], cluster: Cluster) -> dict[str, str]:
    """The environment of the process that MindSpore's cluster on CPUs is scheduled by."""
    return {**_without_cluster(base), **_scheduled(cluster), "MS_ROLE": "MS_SCHED"}


def _without_cluster(base: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in base.items() if name not in _FOREIGN}


def _scheduled(cluster: Cluster) -> dict[str, str]:
    assert cluster.scheduler is not None
    host, _, port = cluster.scheduler.rpartition(":")
    return {"MS_WORKER_NUM": str(cluster.rank_size), "MS_SCHED_HOST": host.strip("[]"), "MS_SCHED_PORT": port}
