"""The agent process around its model: its order, what it registers, how it ends. With MindSpore it is tested in
tests/e2e/distributed."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mindspore_serving.server.distributed._agent_order import WORKER_GONE, AgentOrder
from mindspore_serving.worker import agent
from mindspore_serving.worker.loaded_model import LoadedModel
from mindspore_serving.worker.session_library import TensorInfo
from servers import free_port


def start(order, **environment):
    """An agent process that has been given its order, and the launcher's end of its socket."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "mindspore_serving.worker.agent", str(theirs.fileno())],
        pass_fds=(theirs.fileno(),),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    theirs.close()
    ours.sendall(order.to_bytes(None))
    return process, ours


def nobody_listens():
    return f"127.0.0.1:{free_port()}"


def test_by_hand_it_says_what_starts_it():
    done = subprocess.run(
        [sys.executable, "-m", "mindspore_serving.worker.agent"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "started by distributed.startup_agents, not by hand" in done.stderr


def test_without_a_worker_it_leaves_as_one_whose_worker_is_gone():
    process, launcher = start(AgentOrder(0, "CPU", address=nobody_listens(), token="t"))
    with launcher:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == WORKER_GONE
    assert "The agent ends: cannot connect to 127.0.0.1" in output


def test_a_failure_ends_it_with_the_reason():
    process, launcher = start(AgentOrder(-1, "CPU", address=nobody_listens(), token="t"))
    with launcher:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" in output and "TypeError" in output


def test_modules_in_the_current_directory_do_not_hide_its_own(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('hidden')")
    monkeypatch.chdir(tmp_path)
    process, launcher = start(AgentOrder(0, "CPU", address=nobody_listens(), token="t"))
    with launcher:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == WORKER_GONE, output


class FakeAgent:
    """Plays the native agent."""

    def __init__(self, end):
        self.end = end
        self.sessions = []
        self.registered = None

    def open_session(self, library, options):
        self.sessions.append((library, options))
        return len(self.sessions) - 1

    def add_python_session(self, inputs, outputs, batch_sizes, run, way):
        self.sessions.append((inputs, outputs, batch_sizes, run, way))
        return len(self.sessions) - 1

    def register(self, files, sessions):
        self.registered = (files, sessions)

    def run(self):
        return self.end


class Link:
    def __init__(self):
        self.sent = []

    def send(self, text):
        self.sent.append(text)


def test_it_registers_its_models_and_tells_the_launcher(capsys):
    native, link = FakeAgent("worker gone"), Link()
    info = TensorInfo("x", 11, (4, 2))
    replayed = LoadedModel(
        "/models/a.mindir", [info], [info], 4, [1, 4], "kernel replay", Path("/lib.so"), {"phases": "4:p"}
    )
    python = LoadedModel("/models/b.mindir", [info], [info], 4, [4])
    order = AgentOrder(3, "CPU", models=("/models/a.mindir", "/models/b.mindir"))
    assert agent.run(native, link, order, [replayed, python]) == "worker gone"
    assert native.registered == (["a.mindir", "b.mindir"], [0, 1])
    # A failed run is the end of all ranks: no session ends its process by itself.
    assert native.sessions[0] == ("/lib.so", {"phases": "4:p"})
    assert native.sessions[1][3] == python.python_run
    assert link.sent == ["registered\n"]
    assert "Rank 3, process" in capsys.readouterr().out


def test_an_order_arrives_as_it_was():
    order = AgentOrder(2, "Ascend", 5, ("a", "b"), "AES-CBC", "g", False, (0,), 3, 6, "h:1", "t", "c", "k", "a", True)
    content = order.to_bytes(bytes(24))
    assert int.from_bytes(content[:4], "little") == len(content) - 5 and content[4] == 24
    assert AgentOrder.from_json(content[5:]) == order


@pytest.mark.parametrize("rank", [0, 3])
def test_the_groups_of_the_file_are_made_that_the_rank_belongs_to(tmp_path, monkeypatch, rank):
    mindspore = pytest.importorskip("mindspore")
    from mindspore.train.node_strategy_pb2 import ParallelGroupMap

    groups = ParallelGroupMap()
    for name, ranks in (("even", [0, 2]), ("all", [0, 1, 2, 3]), ("last", [2, 3])):
        item = groups.parallel_group_item.add()
        item.group_name = name
        item.parallel_group_ranks.dim.extend(ranks)
    groups.ckpt_restore_rank_list.dim.append(rank)
    file = tmp_path / "group.pb"
    file.write_bytes(groups.SerializeToString())
    made = []
    monkeypatch.setattr(mindspore.communication, "create_group", lambda name, ranks: made.append((name, ranks)))
    agent._make_groups(AgentOrder(rank, "CPU", group_file=str(file)))
    expected = {0: [("even", [0, 2]), ("all", [0, 1, 2, 3])], 3: [("all", [0, 1, 2, 3]), ("last", [2, 3])]}
    assert made == expected[rank]
    assert np.all([isinstance(number, int) for _, ranks in made for number in ranks])
    file.write_bytes(b"\xff\xff no group file")
    with pytest.raises(RuntimeError, match=r"group configuration file '.*group.pb' cannot be read"):
        agent._make_groups(AgentOrder(rank, "CPU", group_file=str(file)))
