"""The native classes of a distributed servable: server, launcher and agents, as Python uses them."""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mindspore_serving import _core

FLOAT32 = 11
AGENT = textwrap.dedent(
    """
    import os, sys, time
    import numpy as np
    from mindspore_serving import _core

    address, token, rank, socket = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    link = _core.AgentLink(socket)
    link.receive_order()
    agent = _core.RankAgent(address, None, None, None, False, token, rank)

    def run(inputs):
        if inputs[0][0] < 0:
            time.sleep(3600)
        return [inputs[0] * 2]

    agent.add_python_session([("x", 11, [-1])], [("y", 11, [-1])], [], run, "python")
    agent.register(["rank%d.mindir" % rank])
    print(agent.run(), flush=True)
    os._exit(0)
    """
)


@pytest.fixture
def server() -> Iterator[_core.RankServer]:
    made = _core.RankServer("127.0.0.1:0", 2, 1, b'{"rank_size": 2}', None, None, None, False, {"rank_timeout_s": 30})
    yield made
    made.stop("the test ends")


EMPTY_ORDER = struct.pack("<IB", 0, 0)


def start_process(code: str, *arguments: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A process as launchers start them, and the launcher's end of its socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments, str(theirs.fileno())],
            stdout=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    ours.sendall(EMPTY_ORDER)
    return process, ours


class Launcher:
    """Two agents, as startup_agents would have them."""

    def __init__(self, address: str) -> None:
        self.link = _core.RankLauncher(address, None, None, None, False)
        self.configuration = json.loads(self.link.connect(30))
        self.link.claim([0, 1], "here", "127.0.0.1:7000")
        event = self.link.next_event(30)
        assert event is not None
        kind, body = event
        assert kind == "launch"
        self.order = json.loads(body)
        started = [start_process(AGENT, address, self.order["token"], str(rank)) for rank in range(2)]
        self.agents = [process for process, _ in started]
        self.sockets = [ours for _, ours in started]

    def close(self) -> None:
        self.link.close()
        for agent in self.agents:
            agent.kill()
            agent.communicate()
        for ours in self.sockets:
            ours.close()


@pytest.fixture
def launcher(server: _core.RankServer) -> Iterator[Launcher]:
    made = Launcher(server.address)
    yield made
    made.close()


def test_ranks_come_together_and_leave_with_the_server(server: _core.RankServer, launcher: Launcher) -> None:
    assert launcher.configuration == {"rank_size": 2}
    assert launcher.order["scheduler"] == "127.0.0.1:7000"
    assert server.wait(60) is None, server.progress()
    described = server.describe()
    assert [rank["rank"] for rank in described] == [0, 1]
    assert described[1]["host"] == "here"
    assert described[1]["local"]
    assert described[1]["models"][0] == {
        "file": "rank1.mindir",
        "way": "python",
        "inputs": [("x", FLOAT32, [-1])],
        "outputs": [("y", FLOAT32, [-1])],
        "batch_sizes": [],
    }
    server.stop("enough")
    assert launcher.link.next_event(30) == ("stop", "enough")
    assert [agent.communicate(timeout=60)[0].decode().strip() for agent in launcher.agents] == ["stopped", "stopped"]


def test_a_killed_agent_fails_the_group_with_the_launchers_words(server: _core.RankServer, launcher: Launcher) -> None:
    assert server.wait(60) is None
    assert server.failure() is None
    launcher.agents[1].kill()
    launcher.agents[1].wait(60)
    launcher.link.agent_died(1, "killed by signal 9; the last lines of its log: none")
    deadline = time.monotonic() + 60
    while server.failure() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.failure() == "rank 1 on here has died: killed by signal 9; the last lines of its log: none"
    assert launcher.agents[0].communicate(timeout=60)[0].decode().strip() == "worker gone"
    with pytest.raises(ConnectionError):
        while True:
            launcher.link.next_event(30)


def test_agents_end_when_their_launcher_is_gone(server: _core.RankServer, launcher: Launcher) -> None:
    assert server.wait(60) is None
    for ours in launcher.sockets:
        ours.close()
    ends = [(agent.communicate(timeout=60)[0].decode().strip(), agent.returncode) for agent in launcher.agents]
    # The first one's death ends the group, which the second may notice before its own socket's end.
    assert ("", -signal.SIGKILL) in ends
    assert set(ends) <= {("", -signal.SIGKILL), ("worker gone", 0)}


def test_progress_names_what_is_missing(server: _core.RankServer) -> None:
    assert server.wait(0.01) == ""
    assert server.progress() == "0 of 2 ranks are ready; no launcher has claimed ranks 0, 1"


def test_nobody_there_is_a_connection_error() -> None:
    launcher = _core.RankLauncher("127.0.0.1:1", None, None, None, False)
    with pytest.raises(ConnectionError, match=r"cannot connect to 127\.0\.0\.1:1"):
        launcher.connect(5)
    with pytest.raises(ConnectionError):
        _core.RankAgent("127.0.0.1:1", None, None, None, False, "0" * 32, 0)


def test_tls_files_that_cannot_be_used_are_told_at_once(tmp_path: Path) -> None:
    """Trying again does not help, as it may when nobody is there."""
    missing = str(tmp_path / "no.crt")
    launcher = _core.RankLauncher("127.0.0.1:1", missing, missing, None, True)
    with pytest.raises(RuntimeError, match=r"Cannot load the certificate file '.*/no\.crt': No such file"):
        launcher.connect(5)


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(ValueError, match="timeout_of_rank"):
        _core.RankServer("127.0.0.1:0", 1, 1, b"", None, None, None, False, {"timeout_of_rank": 3})


def test_a_process_ends_with_its_launcher_whatever_it_does() -> None:
    code = (
        "import sys, ctypes\n"
        "from mindspore_serving import _core\n"
        "link = _core.AgentLink(int(sys.argv[1]))\n"
        "link.receive_order()\n"
        "print('here', flush=True)\n"
        "ctypes.PyDLL(None).sleep(3600)\n"  # with the GIL
    )
    process, ours = start_process(code)
    with process, ours:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        ours.close()
        assert process.wait(60) == -signal.SIGKILL


def test_a_signal_stops_an_agent_that_waits(server: _core.RankServer, launcher: Launcher) -> None:
    assert server.wait(60) is None
    launcher.agents[0].send_signal(signal.SIGINT)
    assert launcher.agents[0].wait(60) != 0  # KeyboardInterrupt
