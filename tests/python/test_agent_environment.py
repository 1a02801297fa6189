"""The environment that MindSpore's own cluster finds in the processes of the ranks."""

import json
import os
from pathlib import Path

import pytest

from mindspore_serving.server.distributed import _agent_environment
from mindspore_serving.server.distributed._agent_environment import (
    Cluster,
    agent_environment,
    device_type_here,
    scheduler_environment,
)
from mindspore_serving.server.distributed._configuration import Configuration
from mindspore_serving.server.distributed._rank_table import Rank, read_rank_table
from mindspore_serving.server.distributed._rank_table_file import RankTableFile

BASE = {"PATH": "/bin", "RANK_ID": "7", "MS_ROLE": "MS_WORKER", "MS_SCHED_HOST": "elsewhere", "GLOG_v": "1"}
ON_CPU = Cluster("CPU", 4, scheduler="10.0.0.1:7000")


def test_ranks_on_a_cpu_join_mindspores_cluster():
    assert agent_environment(BASE, ON_CPU, Rank(2, "10.0.0.2", 0), "10.0.0.2", None) == {
        "PATH": "/bin",
        "GLOG_v": "1",
        "MS_ROLE": "MS_WORKER",
        "MS_NODE_ID": "2",
        "MS_WORKER_NUM": "4",
        "MS_SCHED_HOST": "10.0.0.1",
        "MS_SCHED_PORT": "7000",
        "MS_WORKER_IP": "10.0.0.2",
    }


def test_the_scheduler_is_none_of_the_ranks():
    assert scheduler_environment(BASE, ON_CPU) == {
        "PATH": "/bin",
        "GLOG_v": "1",
        "MS_ROLE": "MS_SCHED",
        "MS_WORKER_NUM": "4",
        "MS_SCHED_HOST": "10.0.0.1",
        "MS_SCHED_PORT": "7000",
    }


def test_ranks_on_ascend_have_the_rank_table(tmp_path):
    """As HCCL documents it; not run on hardware."""
    cluster = Cluster("Ascend", 16, rank_table_file=tmp_path / "table.json")
    rank = Rank(11, "10.0.0.2", 3)
    assert agent_environment(BASE, cluster, rank, "10.0.0.2", tmp_path / "group.pb") == {
        "PATH": "/bin",
        "GLOG_v": "1",
        "RANK_ID": "11",
        "RANK_SIZE": "16",
        "DEVICE_ID": "3",
        "RANK_TABLE_FILE": str(tmp_path / "table.json"),
        "MS_ENABLE_HCCL": "1",
        "PARA_GROUP_FILE": str(tmp_path / "group.pb"),
    }


def test_an_address_with_colons_keeps_them():
    cluster = Cluster("CPU", 1, scheduler="[fd00::1]:7001")
    environment = agent_environment({}, cluster, Rank(0, "fd00::1", 0), "fd00::1", None)
    assert (environment["MS_SCHED_HOST"], environment["MS_SCHED_PORT"]) == ("fd00::1", "7001")


@pytest.mark.parametrize("there", [False, True])
def test_ascend_is_taken_where_it_is(monkeypatch, there):
    monkeypatch.setattr(_agent_environment.os.path, "exists", lambda path: there)
    assert device_type_here(None) == ("Ascend" if there else "CPU")
    assert device_type_here("CPU") == "CPU"
    assert device_type_here("Ascend") == "Ascend"


# ---- the rank table as a file


TABLE = {
    "server_list": [{"server_id": "10.0.0.1", "device": [{"device_id": "0", "rank_id": "0", "device_ip": "1.2.3.4"}]}],
    "status": "completed",
}
CONFIGURATION = Configuration("matmul", 1, 1, 1, True, (), False, None, read_rank_table(TABLE, "test"))


def test_the_rank_table_is_a_file_as_long_as_ranks_need_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RankTableFile(CONFIGURATION, Cluster("Ascend", 1)) as cluster:
        path = cluster.rank_table_file
        assert path.is_absolute() and path.parent == Path(tmp_path, "temp_rank_table")
        assert json.loads(path.read_text()) == TABLE  # with what only HCCL reads
    assert list(tmp_path.iterdir()) == []


def test_the_file_goes_also_when_ranks_fail(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConnectionError):
        with RankTableFile(CONFIGURATION, Cluster("Ascend", 1)):
            raise ConnectionError
    assert list(tmp_path.iterdir()) == []


def test_files_of_killed_launchers_are_removed_and_others_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "temp_rank_table"
    directory.mkdir()
    (directory / "matmul_4194305_x.json").touch()  # larger than any process's number
    (directory / f"my_model_{os.getppid()}_y.json").touch()
    with RankTableFile(CONFIGURATION, Cluster("Ascend", 1)):
        pass
    assert [path.name for path in directory.iterdir()] == [f"my_model_{os.getppid()}_y.json"]


def test_a_cpu_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with RankTableFile(CONFIGURATION, ON_CPU) as cluster:
        assert cluster == ON_CPU
        assert list(tmp_path.iterdir()) == []
