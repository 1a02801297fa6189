"""Versions come and go while requests run: none is lost, none is answered wrongly, and what they took comes back."""

import contextlib
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from checked_load import Load, ask_once, assert_switches_once, grpc_sender, rest_sender
from driven_server import START, DrivenServer, write_numbers
from servables import add_config, make_servable

ADD = {"x1": [[1.0, 1.0], [1.0, 1.0]], "x2": [[1.0, 1.0], [1.0, 1.0]]}
ENVIRONMENT = {"MSSERVING_IO_THREADS": "2", "GLOG_v": "1"}


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[..., DrivenServer]]:
    """Starts a DrivenServer in tmp_path on two event loops."""
    servers = []

    def start(*arguments: str) -> DrivenServer:
        servers.append(DrivenServer(tmp_path, *arguments, env=ENVIRONMENT))
        return servers[-1].__enter__()

    yield start
    for server in servers:
        server.kill()


def senders(server: DrivenServer, each: int = 2, **arguments) -> list:
    return [grpc_sender(server.grpc_address, **arguments) for _ in range(each)] + [
        rest_sender(server.rest_address, **arguments) for _ in range(each)
    ]


def one_answer(server: DrivenServer, **arguments) -> float:
    return ask_once(grpc_sender(server.grpc_address, **arguments))


def until(condition: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def ask_for_an_hour(server: DrivenServer) -> tuple[threading.Thread, list[str]]:
    """A request that sleeps in its worker, asked by a thread; the list gets its error. Returns once it is pending."""
    failures: list[str] = []

    def ask() -> None:
        try:
            one_answer(server, x=3600.0)
        except RuntimeError as error:
            failures.append(str(error))

    sleeper = threading.Thread(target=ask)
    sleeper.start()
    until(lambda: server.call("json.loads(server._server._running.native.stats())['pending']") == 1)
    return sleeper, failures


def held(pid: int) -> tuple[int, int, int]:
    """A process's descriptors, shared memory maps and threads."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    return (len(os.listdir(f"/proc/{pid}/fd")), maps.count("memfd:"), len(os.listdir(f"/proc/{pid}/task")))


def private_memory(pid: int) -> int:
    """Bytes that are the process's alone."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) << 10


# ---------------------------------------------------------------------------------------------- reloading
def test_NewVersionsUnderLoad_NothingIsLostAndAnswersSwitchOnce(tmp_path, drive, long_run):
    write_numbers(tmp_path, 1, 1)
    server = drive()
    with Load(senders(server)) as load:
        load.wait_for(20)
    assert load.errors() == [] and {one.value for one in load.all()} == {1.0}
    at_first, workers = held(server.pid), len(server.worker_pids())
    last = 40 if long_run else 4
    for version in range(2, last + 1):
        if version == 4:
            memory = private_memory(server.pid)  # the first loads have taken what is kept
        with Load(senders(server)) as load:
            load.wait_for(20)
            write_numbers(tmp_path, version, version)
            assert server.call("server.reload_servables()") == [["numbers", version]]
            load.wait_for(20)
        assert_switches_once(load, version - 1, version)
        with pytest.raises(RuntimeError, match=rf"version {version - 1} of servable 'numbers' is not available"):
            one_answer(server, version=version - 1)
        assert one_answer(server, version=version) == version
    assert len(server.worker_pids()) == workers
    assert private_memory(server.pid) - memory < 32 << 20
    # Connections of the load may still be closing.
    until(lambda: all(now <= then for now, then in zip(held(server.pid), at_first, strict=True)))
    assert server.call("server.reload_servables()") == []
    assert server.stop(signal.SIGTERM) == 0, server.log


def test_NewModelUnderLoad_IsTakenByTheWatchOnceItIsComplete(tmp_path, models, drive):
    """The model's file is renamed into place at last; until then the version is not complete."""
    servable = make_servable(tmp_path, "numbers", add_config("model"), {})
    (servable / "1").mkdir()
    shutil.copy(models / "add.mindir", servable / "1" / "model.mindir")
    server = drive()
    arguments = {"method": "add", **ADD}
    with Load(senders(server, **arguments)) as load:
        load.wait_for(10)
        server.call("server.watch_versions(interval_seconds=0.1)")
        (servable / "2").mkdir()
        (servable / "2" / "notes.txt").write_text("the model is on its way")
        shutil.copy(models / "plus100.mindir", servable / "2" / "part")
        assert server.call("server.reload_servables()") == []
        assert "event=version_incomplete servable=numbers version=2 missing=model.mindir" in server.log
        time.sleep(0.5)  # some looks of the watch
        load.wait_for(5)
        assert load.all()[-1].value == 2.0
        (servable / "2" / "part").rename(servable / "2" / "model.mindir")
        until(lambda: load.all()[-1].value == 102.0, 120)
        until(lambda: len(server.worker_pids()) == 1)
    assert_switches_once(load, 2.0, 102.0)
    assert "reload_failed" not in server.log


def test_VersionThatCannotBeLoaded_LeavesTheOldOneAndIsTriedAgainOnlyWhenChanged(tmp_path, drive):
    write_numbers(tmp_path, 1, 1)
    server = drive()
    tries = tmp_path / "tries"
    with Load(senders(server, 1)) as load:
        server.call("server.watch_versions(interval_seconds=0.1)")
        write_numbers(
            tmp_path, 2, 2, before=f"open({str(tries)!r}, 'a').write('x'); raise ValueError('no calibration')"
        )
        until(lambda: "event=reload_failed" in server.log)
        time.sleep(1)
        load.wait_for(5)
        assert tries.read_text() == "x"
        assert server.log.count("event=reload_failed") == 1
        assert "no calibration" in next(line for line in server.log.splitlines() if "event=reload_failed" in line)
        with pytest.raises(RuntimeError, match="no calibration"):
            server.call("server.reload_servables()")  # asked for by hand it is tried
        assert tries.read_text() == "xx"
        assert load.errors() == [] and {one.value for one in load.all()} == {1.0}
        os.rmdir(tmp_path / "numbers" / "2")
        write_numbers(tmp_path, 3, 2)
        until(lambda: load.all()[-1].value == 3.0)
        server.call("server.watch_versions(interval_seconds=0)")
    assert_switches_once(load, 1.0, 3.0)


def test_VersionJoinsOnceAllOfItsWorkersAreReady_AndTheLogSaysSo(tmp_path, drive):
    write_numbers(tmp_path, 1, 1)
    server = drive(START.replace("config()", "config(devices=(0, 1))"))
    late = "import os\nif os.environ['SERVING_DEVICE_ID'] == '1': time.sleep(2)"
    with Load(senders(server)) as load:
        load.wait_for(5)
        write_numbers(tmp_path, 2, 2, before=late)
        reloading = threading.Thread(target=lambda: server.call("server.reload_servables()"))
        reloading.start()
        until(lambda: load.all()[-1].value == 2.0)
        ready = [line for line in server.log.splitlines() if 'event=worker_ready worker="numbers version 2' in line]
        assert len(ready) == 2
        reloading.join(60)
    assert_switches_once(load, 1.0, 2.0)
    events = re.findall(r"event=(version_\w+) servable=numbers version=(\d)", server.log)
    assert events == [
        ("version_joined", "1"),
        ("version_joined", "2"),
        ("version_leaving", "1"),
        ("version_left", "1"),
    ]
    assert server.log.count('event=worker_ended worker="numbers version 1') == 2
    assert server.stop(signal.SIGTERM) == 0
    assert server.log.index("event=server_stopping drain_ms=10000") < server.log.index("event=server_stopped")


def test_LongRequestOfTheOldVersion_IsAnsweredBeforeItLeaves(tmp_path, drive):
    write_numbers(tmp_path, 1, 1)
    server = drive()
    answers = []
    sleepers = [
        threading.Thread(target=lambda make=make: answers.append(ask_once(make)))
        for make in senders(server, 1, x=4.0) + senders(server, 1, x=1.0)
    ]
    for sleeper in sleepers:
        sleeper.start()
    until(lambda: server.call("json.loads(server._server._running.native.stats())['pending']") == 4)
    write_numbers(tmp_path, 2, 2)
    assert server.call("server.reload_servables()") == [["numbers", 2]]
    for sleeper in sleepers:
        sleeper.join(60)
    assert answers == [1.0] * 4


def test_DrainLongerThanTheTimeout_IsAnsweredWithAnError(tmp_path, drive):
    write_numbers(tmp_path, 1, 1)
    server = drive()
    sleeper, failures = ask_for_an_hour(server)
    server.call("server.set_stop_timeout(0.5)")
    write_numbers(tmp_path, 2, 2)
    assert server.call("server.reload_servables()") == [["numbers", 2]]
    sleeper.join(60)
    assert len(failures) == 1 and "numbers version 1" in failures[0]
    assert "event=drain_timeout servable=numbers version=1" in server.log
    assert one_answer(server) == 2.0


# ---------------------------------------------------------------------------------------------- starting more
def test_MoreServablesAndVersions_JoinARunningServerAndLeaveAgain(tmp_path, drive):
    write_numbers(tmp_path, 1, 1)
    server = drive()
    at_first = held(server.pid)
    with Load(senders(server, version=1)) as load:
        load.wait_for(10)
        write_numbers(tmp_path, 2, 2)
        write_numbers(tmp_path, 7, 1, name="others")
        server.call('server.start_servables([config(version_number=2), config("others", [0, 1])])')
        assert len(server.worker_pids()) == 4
        assert one_answer(server) == 2.0 and one_answer(server, version=2) == 2.0
        assert one_answer(server, servable="others") == 7.0
        for wrong, text in (
            ("config(version_number=2)", "has been called already and is running servable 'numbers' version 2"),
            ("config(version_number=9)", "There is no specified version"),
            ('[config("others", version_number=1)]', "running servable 'others' version 1"),
            ('server.ServableStartConfig(folder + "/x", "numbers", 0)', "Check servable config failed, directory"),
            ('"numbers"', "should be ServableStartConfig"),
        ):
            with pytest.raises(RuntimeError, match=text):
                server.call(f"server.start_servables({wrong})")
        for name, version in (("others", 0), ("numbers", 2)):
            server.call(f"server.stop_servable({name!r}, {version})")
        with pytest.raises(RuntimeError, match="Servable 'others' is not running"):
            server.call("server.stop_servable('others')")
        with pytest.raises(RuntimeError, match="version 2 is not running: its versions 1 are"):
            server.call("server.stop_servable('numbers', 2)")
        with pytest.raises(RuntimeError, match="servable is not available"):
            one_answer(server, servable="others")
        assert one_answer(server) == 1.0
        load.wait_for(5)
    assert load.errors() == [] and {one.value for one in load.all()} == {1.0}
    assert len(server.worker_pids()) == 1
    until(
        lambda: all(now <= then + extra for now, then, extra in zip(held(server.pid), at_first, (4, 0, 0), strict=True))
    )


def test_LaterServableThatFails_StopsNothingThatRuns(tmp_path, drive):
    write_numbers(tmp_path, 1, 1)
    server = drive()
    write_numbers(tmp_path, 5, 1, name="good")
    write_numbers(tmp_path, 6, 1, name="bad", before="raise ValueError('not this one')")
    with Load(senders(server, 1)) as load:
        with pytest.raises(RuntimeError, match="not this one"):
            server.call('server.start_servables([config("good"), config("bad", (0, 1))])')
        assert len(server.worker_pids()) == 1, "what the failed call started is still there"
        with pytest.raises(RuntimeError, match="servable is not available"):
            one_answer(server, servable="good")
        server.call('server.start_servables(config("good"))')
        assert one_answer(server, servable="good") == 5.0
    assert load.errors() == []


def test_VersionAskedForByItsNumber_StaysWhenANewerOneIsFollowed(tmp_path, drive):
    write_numbers(tmp_path, 1, 1)
    server = drive(
        "server.start_servables([config(), config(version_number=1, devices=1)])\n"
        'server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"])\n'
    )
    assert len(server.worker_pids()) == 2
    write_numbers(tmp_path, 2, 2)
    assert server.call("server.reload_servables()") == [["numbers", 2]]
    assert [one_answer(server, version=version) for version in (0, 1, 2)] == [2.0, 1.0, 2.0]
    write_numbers(tmp_path, 3, 3)
    assert server.call("server.reload_servables()") == [["numbers", 3]]
    assert [one_answer(server, version=version) for version in (0, 1, 3)] == [3.0, 1.0, 3.0]
    with pytest.raises(RuntimeError, match="version 2 of servable 'numbers' is not available"):
        one_answer(server, version=2)


# ---------------------------------------------------------------------------------------------- at any moment
def test_WorkersKilledWhileVersionsChange_EveryRequestIsAnswered(tmp_path, drive):
    write_numbers(tmp_path, 1, 1)
    server = drive()
    (old,) = server.worker_pids()
    # The new one dies while it loads: the old one goes on.
    write_numbers(tmp_path, 2, 2, before="import os; os.kill(os.getpid(), 9)")
    with Load(senders(server, 1)) as load:
        with pytest.raises(RuntimeError, match="signal 9"):
            server.call("server.reload_servables()")
        assert server.worker_pids() == [old]
        load.wait_for(5)
    assert load.errors() == [] and {one.value for one in load.all()} == {1.0}
    # The old one is killed while it drains: its request is answered with an error, and the change goes through.
    write_numbers(tmp_path, 3, 3)
    sleeper, failures = ask_for_an_hour(server)
    reloading = threading.Thread(target=lambda: server.call("server.reload_servables()"))
    reloading.start()
    until(lambda: "event=version_leaving servable=numbers version=1" in server.log)
    os.kill(old, signal.SIGKILL)
    for thread in (sleeper, reloading):
        thread.join(60)
        assert not thread.is_alive()
    assert len(failures) == 1 and "signal 9" in failures[0]
    assert len(server.worker_pids()) == 1 and one_answer(server) == 3.0


def test_WorkersKilledAtRandomWhileVersionsChange_NoAnswerIsWrongOrMissing(tmp_path, drive, long_run):
    """A restarted worker of an old version reads the new servable_config.py, so any version's answer is right."""
    random = Random(7)
    write_numbers(tmp_path, 1, 1)
    server = drive()
    reloads, loaded = 30 if long_run else 5, 0
    over = threading.Event()

    def kill() -> None:
        while not over.wait(random.uniform(0.1, 1.5)):
            for pid in random.sample(workers, 1) if (workers := server.worker_pids()) else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    with Load(senders(server)) as load:
        killer.start()
        for version in range(2, reloads + 2):
            write_numbers(tmp_path, version, version)
            try:
                loaded += len(server.call("server.reload_servables()"))
            except RuntimeError as error:
                assert "signal 9" in str(error)
        over.set()
        killer.join()
        write_numbers(tmp_path, 1000, 1000)
        assert server.call("server.reload_servables()") == [["numbers", 1000]]
        until(lambda: load.all()[-1].value == 1000.0)
    assert {one.value for one in load.all()} <= {None, 1000.0, *(float(version) for version in range(1, reloads + 2))}
    for error in load.errors():
        assert "ended while it had the request" in error or "servable is not available" in error, error
    until(lambda: len(server.worker_pids()) == 1)
    assert len({one.value for one in load.all()}) > 1, f"{loaded} were loaded"


@pytest.mark.parametrize("after", [0.0, 0.2, 0.5, 1.0])
def test_SignalWhileVersionsChange_NothingIsLeft(tmp_path, drive, after):
    write_numbers(tmp_path, 1, 1)
    server = drive()
    write_numbers(tmp_path, 2, 2)
    write_numbers(tmp_path, 7, 1, name="others")
    changing = threading.Thread(target=change, args=(server,))
    changing.start()
    time.sleep(after)
    server.send_signal(signal.SIGTERM)
    server.wait_exit(60)
    changing.join(60)
    assert server.pids() == []


@pytest.mark.parametrize("after", [0.0, 0.2, 0.5, 1.0])
def test_StopByAnotherThreadWhileVersionsChange_EverythingCanBeStartedAgain(tmp_path, drive, after):
    write_numbers(tmp_path, 1, 1)
    server = drive()
    server.call("server.watch_versions(0.1)")
    write_numbers(tmp_path, 2, 2)
    write_numbers(tmp_path, 7, 1, name="others")
    server.call(f"in_thread(lambda: (time.sleep({after}), server.stop()))")
    change(server)
    server.call("join_threads()")  # or its stop() may come after the next start
    server.call("server.stop()")
    assert server.worker_pids() == []
    server.call("server.start_servables(config())")
    server.call('server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"])')
    assert one_answer(server) == 2.0
    assert server.stop() == 0, server.log


def change(server: DrivenServer) -> None:
    try:
        server.call('(server.reload_servables(), server.start_servables(config("others")))')
    except (RuntimeError, ConnectionError):
        pass  # it was interrupted
