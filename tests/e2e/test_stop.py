"""Stopping: what runs is answered, new work is refused politely, and nothing is left, however often."""

import http.client
import json
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
import pytest

from checked_load import ask_once, grpc_sender, rest_sender
from driven_server import START, DrivenServer, write_numbers
from mindspore_serving.client import Client
from servers import session_pids

SIGNALS = [signal.SIGINT, signal.SIGTERM]
PENDING = "json.loads(server._server._running.native.stats())['pending']"


@pytest.fixture
def server(tmp_path):
    write_numbers(tmp_path, 1, 1)
    with DrivenServer(tmp_path) as driven:
        yield driven


class Asking:
    """One request in a thread of its own; `outcome` is the value or the error."""

    def __init__(self, ask: Callable[[], float]) -> None:
        self.outcome: float | str | None = None
        self._ask = ask
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.outcome = self._ask()
        except Exception as error:
            self.outcome = f"{type(error).__name__}: {error}"

    def join(self) -> float | str | None:
        self._thread.join(60)
        assert not self._thread.is_alive(), "the request was never answered"
        return self.outcome


def ask_both(server: DrivenServer, seconds: float) -> list[Asking]:
    """Requests of that many seconds over both protocols, once both are with the worker."""
    makes = [grpc_sender(server.grpc_address, x=seconds), rest_sender(server.rest_address, x=seconds)]
    asking = [Asking(partial(ask_once, make)) for make in makes]
    deadline = time.monotonic() + 60
    while server.call(PENDING) != 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return asking


def is_refused(address: str) -> bool:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 503
    except ConnectionError:
        return True
    finally:
        connection.close()


@pytest.mark.parametrize("number", SIGNALS)
def test_Signal_AnswersWhatRunsAndRefusesWhatIsNew(server, number):
    assert not is_refused(server.rest_address)
    channel = grpc.insecure_channel(server.grpc_address)
    grpc.channel_ready_future(channel).result(30)
    server.call("server.set_stop_timeout(60)")
    asking = ask_both(server, 6.0)  # one after the other
    server.send_signal(number)
    deadline = time.monotonic() + 5
    while not is_refused(server.rest_address):
        assert time.monotonic() < deadline, "health says ready, or new connections are taken"
        time.sleep(0.02)
    # Health is not ready first, then nothing new is taken: what comes in between is answered behind them.
    while True:
        with Client(server.grpc_address, "numbers", "answer") as client:
            reply = client.infer([{"x": 0.0}])
        if isinstance(reply, dict):
            break
    assert "(14, 'unavailable')" in reply["error"]
    assert [one.join() for one in asking] == [1.0, 1.0]
    assert server.wait_exit(60) == 0, server.log
    assert server.pids() == []
    channel.close()


def test_SlowerThanTheTimeout_IsGivenUp(server):
    server.call("server.set_stop_timeout(0.5)")
    asking = ask_both(server, 3600.0)
    server.send_signal(signal.SIGTERM)
    assert server.wait_exit(60) == 0, server.log
    assert all(isinstance(one.join(), str) for one in asking)
    assert "event=drain_timeout unanswered=2 hurried=0" in server.log
    assert server.pids() == []


@pytest.mark.parametrize("number", SIGNALS)
def test_SecondSignal_StopsAtOnce(server, number):
    server.call("server.set_stop_timeout(3600)")
    asking = ask_both(server, 3600.0)
    server.send_signal(number)
    time.sleep(1)
    assert server.worker_pids(), "it did not wait for what runs"
    server.send_signal(number)
    assert server.wait_exit(60) == 0, server.log
    assert all(isinstance(one.join(), str) for one in asking)
    assert "event=drain_timeout unanswered=2 hurried=1" in server.log
    assert server.pids() == []


@pytest.mark.parametrize("after", [0.2, 0.6, 1.2])
def test_SignalWhileStarting_NothingIsLeft(tmp_path, after):
    write_numbers(tmp_path, 1, 1, before="time.sleep(2)")
    server = DrivenServer(tmp_path, START.replace("config()", "config(devices=(0, 1))"))
    try:
        server.start()
        time.sleep(after)
        server.send_signal(signal.SIGTERM)
        assert server.wait_exit(60) != 0
        assert server.pids() == []
        assert "driven" not in server.log.splitlines()
    finally:
        server.kill()


def test_StopByManyThreads_AllReturnWhenItHasStopped(server):
    asking = ask_both(server, 2.0)
    assert (
        server.call(
            "(lambda threads: ([one.start() for one in threads], [one.join() for one in threads], server.stop(), "
            "len(threads))[-1])([threading.Thread(target=server.stop) for _ in range(4)])"
        )
        == 4
    )
    assert [one.join() for one in asking] == [1.0, 1.0]
    assert server.worker_pids() == []
    server.call("server.stop()")


def test_SignalDuringStopByHand_StopsAtOnce(server):
    server.call("server.set_stop_timeout(3600)")
    asking = ask_both(server, 3600.0)
    stopping = Asking(lambda: server.call("server.stop()") or 0)
    time.sleep(1)
    assert stopping.outcome is None
    server.send_signal(signal.SIGINT)
    stopping.join()
    assert all(isinstance(one.join(), str) for one in asking)
    assert server.worker_pids() == []


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), True, "5", None])
def test_WrongStopTimeout_IsRefused(wrong):
    from mindspore_serving import server as api

    with pytest.raises(RuntimeError, match="Parameter 'seconds' should be"):
        api.set_stop_timeout(wrong)
    for interval in (0.05, -1, True):
        with pytest.raises(RuntimeError, match="Parameter 'interval_seconds' should be"):
            api.watch_versions(interval)


def test_VersionCallsWithoutAServer_SayWhatIsMissing():
    from mindspore_serving import server as api

    for call in (api.reload_servables, api.watch_versions, lambda: api.stop_servable("numbers")):
        with pytest.raises(RuntimeError, match="needs a running server: call start_servables first"):
            call()
    with pytest.raises(RuntimeError, match="Parameter 'servable_name' should be str"):
        api.stop_servable(None)
    with pytest.raises(RuntimeError, match="Parameter 'version_number' should be int"):
        api.stop_servable("numbers", True)


CYCLES = (
    """
def held():
    import re
    gc.disable()  # a stopped server is given back without it
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "shared maps": open("/proc/self/maps").read().count("memfd:"),
        "private kB": int(re.search(r"RssAnon:\\s+(\\d+)", open("/proc/self/status").read())[1]),
        "children": sum(len(open(f"/proc/self/task/{task}/children").read().split())
                        for task in os.listdir("/proc/self/task")),
    }

def begin():"""
    + START.replace("\n", "\n    ")
    + """

def end():
    server.stop()
    return held()
"""
)


def test_StartAndStopAgainAndAgain_LeavesNothing(tmp_path, long_run):
    """Every cycle serves over both protocols from fresh processes; the first is left out of the comparison."""
    write_numbers(tmp_path, 1, 1)
    shared_memory = set(Path("/dev/shm").iterdir())
    with DrivenServer(tmp_path, CYCLES) as server:
        seen = []
        for _ in range(50 if long_run else 5):
            server.call("begin()", timeout=120)
            assert ask_once(grpc_sender(server.grpc_address)) == 1.0
            assert ask_once(rest_sender(server.rest_address)) == 1.0
            seen.append(server.call("end()", timeout=120))
        assert server.worker_pids() == []
        private = [one.pop("private kB") for one in seen]
        print("private kB after each cycle:", private)
        # What Python and the allocator keep levels off.
        assert private[-1] - private[len(private) // 2] < 1000, private
        assert all(one == seen[1] for one in seen[2:]), json.dumps(seen)
        assert seen[-1]["shared maps"] == 0 and seen[-1]["children"] == 0
        session = server.pid
        server.send_signal(signal.SIGKILL)  # nothing that stop() still had to do
        server.wait_exit()
    assert session_pids(session) == []
    assert set(Path("/dev/shm").iterdir()) <= shared_memory
    left = {path.name for path in tmp_path.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert left == {"driven.py", "driven.log", "servable_config.py", "log_numbers_device0_version1.log"}
