"""The launcher of agents: its lives against a distributed worker of the test's own, with real processes that play the
agents. What agents are given is in test_agent_environment.py."""

import errno
import json
import os
import queue
import selectors
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from mindspore_serving.server.distributed import _launcher
from mindspore_serving.server.distributed._agent_files import check_agent_files
from mindspore_serving.server.distributed._configuration import Configuration
from mindspore_serving.server.distributed._launcher import Launcher, LauncherSettings
from mindspore_serving.server.distributed._rank_table import read_rank_table

KEY = bytes(range(16))
LONG = 60.0  # what is waited for comes much earlier

# Plays an agent: takes its order as agents do, writes down what it was given, and does what its model file says.
AGENT = """
import json, os, sys, time
from mindspore_serving._native import load_native
link = load_native("_core").AgentLink(int(sys.argv[1]))
order = json.loads(link.receive_order())
name = "scheduler" if order["rank"] is None else f"rank{order['rank']}"
given = {"order": order, "environment": dict(os.environ), "arguments": sys.argv, "pid": os.getpid()}
lives = len([one for one in os.listdir(OUT) if one.startswith(name + ".")])
with open(f"{OUT}/tmp.{name}", "w") as file:
    json.dump(given, file)
os.rename(f"{OUT}/tmp.{name}", f"{OUT}/{name}.{lives}")
print(f"{name} is here", flush=True)
script = open(order["models"][0]).read() if order["models"] else ""
exec(script)
link.send("registered\\n")
exec(open(order["models"][0]).read().partition("# registered")[2] if order["models"] else "")
time.sleep(600)
"""


class Worker:
    """Plays the distributed worker: hands out connections, and has what the launcher said on them."""

    def __init__(self, configuration):
        self.configuration = configuration
        self.connections = queue.Queue()
        self.there = True

    def connect(self, settings):
        return Connection(self, settings)


class Connection:
    def __init__(self, worker, settings):
        self.worker = worker
        self.settings = settings
        self.events = queue.Queue()
        self.claims = []
        self.deaths = queue.Queue()
        self.logs = queue.Queue()
        self.closed = False

    def connect(self, timeout_s):
        if not self.worker.there:
            raise ConnectionError("connection refused")
        self.worker.connections.put(self)
        return self.worker.configuration.to_json()

    def claim(self, ranks, host, scheduler):
        self.claims.append((ranks, host, scheduler))

    def next_event(self, timeout_s):
        try:
            event = self.events.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if event is None:
            raise ConnectionError("the distributed worker has closed the connection")
        return event

    def agent_died(self, rank, text):
        self.deaths.put((rank, text))

    def log_lines(self, rank, text):
        self.logs.put((rank, text))

    def close(self):
        self.closed = True

    # what the test says as the worker

    def launch(self, token="t1"):
        scheduler = self.claims[0][2]
        self.events.put(("launch", json.dumps({"token": token, "scheduler": scheduler})))

    def end(self):
        self.events.put(None)

    def stop(self):
        self.events.put(("stop", "the server has stopped the servable"))


def configuration(device_type="CPU", ips=("127.0.0.1", "127.0.0.1")):
    devices = [{"server_id": ip, "device": [{"device_id": str(i), "rank_id": str(i)}]} for i, ip in enumerate(ips)]
    table = read_rank_table({"server_list": devices, "status": "completed"}, "test")
    return Configuration("matmul", 1, len(ips), 1, True, (1,), False, device_type, table)


class Bench:
    """A launcher in a directory of the test's own, and what its processes were given."""

    def __init__(self, directory, monkeypatch):
        self.directory = directory
        self.out = directory / "out"
        self.out.mkdir()
        self.signal = 0
        self.launchers = []
        (directory / "agent.py").write_text(textwrap.dedent(AGENT).replace("OUT", repr(str(self.out))))
        monkeypatch.chdir(directory)
        monkeypatch.setattr("sys.argv", [str(directory / "script.py")])

    def model(self, name, text=""):
        (self.directory / name).write_text(text)
        return name

    def start(self, worker, models, **settings):
        files = check_agent_files(models, settings.pop("groups", None))
        launcher = Launcher(
            LauncherSettings("127.0.0.1:6200", files, **settings),
            self.directory / "serving_logs",
            lambda: self.signal,
            worker.connect,
            lambda: [sys.executable, str(self.directory / "agent.py")],
        )
        self.launchers.append(launcher)
        launcher.start()
        return launcher

    def given(self, name, life=0):
        path = self.out / f"{name}.{life}"
        wait_for(path.exists)
        return json.loads(path.read_text())

    def log(self, name):
        return (self.directory / "serving_logs" / f"log_agent_{name}.log").read_text()


def wait_for(condition):
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def runs(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def fail_in_launcher(monkeypatch, place, name, times):
    """Let the launcher's thread have too many open files in its first calls of a function; the arguments of these."""
    function, failed = getattr(place, name), []

    def call(*arguments, **options):
        if threading.current_thread().name == "serving-launcher" and len(failed) < times:
            failed.append(arguments)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return function(*arguments, **options)

    monkeypatch.setattr(place, name, call)
    return failed


@pytest.fixture
def bench(tmp_path, monkeypatch):
    made = Bench(tmp_path, monkeypatch)
    yield made
    for launcher in made.launchers:
        launcher.stop()
        launcher.join()


@pytest.fixture
def worker():
    return Worker(configuration())


def started(bench, worker, **settings):
    launcher = bench.start(worker, [bench.model("a.mindir"), bench.model("b.mindir")], **settings)
    connection = worker.connections.get(timeout=LONG)
    wait_for(lambda: connection.claims)
    connection.launch()
    launcher.wait_registered()
    return launcher, connection


def test_the_ranks_of_this_machine_are_claimed_and_started_when_the_worker_says_so(bench, worker):
    launcher = bench.start(worker, [bench.model("a.mindir"), bench.model("b.mindir")], agent_start_port=7000)
    connection = worker.connections.get(timeout=LONG)
    wait_for(lambda: connection.claims)
    ((ranks, host, scheduler),) = connection.claims
    assert (ranks, host) == ([0, 1], "127.0.0.1")
    assert scheduler.startswith("127.0.0.1:") and int(scheduler.rpartition(":")[2]) >= 7000
    assert list(bench.out.iterdir()) == []  # nothing runs before all ranks are claimed
    connection.launch("the token")
    launcher.wait_registered()
    for rank, model in enumerate(("a.mindir", "b.mindir")):
        order = bench.given(f"rank{rank}")["order"]
        assert (order["rank"], order["models"], order["token"]) == (rank, [str(bench.directory / model)], "the token")
        assert (order["address"], order["with_batch_dim"], order["without_batch_dim_inputs"]) == (
            "127.0.0.1:6200",
            True,
            [1],
        )
    assert bench.given("scheduler")["environment"]["MS_ROLE"] == "MS_SCHED"


def test_the_processes_end_with_the_servable(bench, worker):
    launcher, connection = started(bench, worker)
    pids = [bench.given(name)["pid"] for name in ("rank0", "rank1", "scheduler")]
    assert all(map(runs, pids))
    connection.stop()
    launcher.join()
    assert not launcher.failed
    assert launcher.stopped == "The distributed servable has been stopped: the server has stopped the servable"
    assert not any(map(runs, pids))
    assert connection.closed and connection.deaths.empty()


@pytest.mark.parametrize("registered", [False, True])
def test_a_signal_ends_the_processes(bench, worker, registered):
    launcher = bench.start(worker, [bench.model("a.mindir"), bench.model("b.mindir")])
    connection = worker.connections.get(timeout=LONG)
    if registered:
        wait_for(lambda: connection.claims)
        connection.launch()
        launcher.wait_registered()
    bench.signal = signal.SIGTERM
    if not registered:
        with pytest.raises(RuntimeError, match="Starting the agents was interrupted by signal 15"):
            launcher.wait_registered()
    launcher.join()
    assert connection.closed
    for path in bench.out.iterdir():
        assert not runs(json.loads(path.read_text())["pid"])


def test_the_ranks_come_back_with_the_worker(bench, worker):
    _, connection = started(bench, worker)
    first = bench.given("rank0")["pid"]
    worker.there = False
    connection.end()
    wait_for(lambda: not runs(first))
    worker.there = True
    second = worker.connections.get(timeout=LONG)
    wait_for(lambda: second.claims)
    second.launch("another token")
    again = bench.given("rank0", 1)
    assert again["order"]["token"] == "another token" and runs(again["pid"])
    wait_for(lambda: bench.log("rank0").count("rank0 is here") == 2)  # the log goes on


def test_what_is_wrong_in_a_later_life_may_be_put_right(bench, worker, monkeypatch):
    monkeypatch.setattr(_launcher, "_RETRY_SECONDS", 0.05)
    launcher, connection = started(bench, worker)
    right, worker.configuration = worker.configuration, configuration(ips=("240.0.0.1", "240.0.0.2"))
    connection.end()
    for _ in range(2):
        assert worker.connections.get(timeout=LONG).claims == []
    assert not launcher.failed
    worker.configuration = right
    seen = []

    def claimed():
        while not worker.connections.empty():
            seen.append(worker.connections.get())
        return any(one.claims for one in seen)

    wait_for(claimed)


def next_life(worker):
    connection = worker.connections.get(timeout=LONG)
    wait_for(lambda: connection.claims)
    connection.launch()
    return connection


@pytest.mark.parametrize(
    ("place", "name"),
    [(socket, "socketpair"), (os, "pipe"), (os, "pidfd_open"), (os, "eventfd")],
    ids=["socketpair", "pipe", "pidfd_open", "eventfd"],
)
def test_what_the_system_refuses_in_a_later_life_is_tried_again(bench, worker, monkeypatch, place, name):
    monkeypatch.setattr(_launcher, "_RETRY_SECONDS", 0.05)
    launcher, connection = started(bench, worker)
    refused = fail_in_launcher(monkeypatch, place, name, times=2)
    connection.end()
    for _ in range(2):
        second = next_life(worker)
        wait_for(lambda second=second: second.closed)
    next_life(worker)
    given = bench.given("rank0", 1)
    assert runs(given["pid"]) and launcher.stopped == ""
    assert len(refused) == 2
    if name == "pidfd_open":  # a process that was begun is not left behind
        for pid, *_ in refused:
            with pytest.raises(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def test_a_process_that_cannot_be_watched_is_not_left_behind(bench, worker, monkeypatch):
    monkeypatch.setattr(_launcher, "_RETRY_SECONDS", 0.05)
    launcher, connection = started(bench, worker)
    register, refused = selectors.DefaultSelector.register, []

    def full(self, file, events, data=None):
        ours = threading.current_thread().name == "serving-launcher"
        if ours and isinstance(file, socket.socket) and not refused:  # the last of a process's files
            refused.append(file)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return register(self, file, events, data)

    monkeypatch.setattr(selectors.DefaultSelector, "register", full)
    connection.end()
    second = next_life(worker)
    wait_for(lambda: second.closed)
    assert refused[0].fileno() == -1  # closed with its process, which has been waited for
    next_life(worker)
    assert runs(bench.given("rank0", 1)["pid"]) and launcher.stopped == ""


def test_what_the_system_refuses_in_the_first_life_ends_it(bench, worker, monkeypatch):
    fail_in_launcher(monkeypatch, os, "eventfd", times=1)
    launcher = bench.start(worker, [bench.model("a.mindir"), bench.model("b.mindir")])
    next_life(worker)
    with pytest.raises(RuntimeError, match=r"^The agents cannot be started: .*Too many open files"):
        launcher.wait_registered()
    assert launcher.failed


def test_a_log_directory_that_cannot_be_made_ends_the_first_life(bench, worker):
    (bench.directory / "serving_logs").write_text("a file")
    launcher = bench.start(worker, [bench.model("a.mindir"), bench.model("b.mindir")])
    next_life(worker)
    with pytest.raises(RuntimeError, match=r"^The agents cannot be started: .*File exists: '.*serving_logs'"):
        launcher.wait_registered()
    assert launcher.failed


def test_an_agents_death_is_told_once_with_the_end_of_its_log(bench, worker):
    _, connection = started(bench, worker)
    os.kill(bench.given("rank1")["pid"], signal.SIGKILL)
    rank, text = connection.deaths.get(timeout=LONG)
    assert rank == 1
    assert text.startswith("the agent of rank 1 was killed by signal 9; the last lines of its log:\nrank1 is here")
    connection.end()
    second = worker.connections.get(timeout=LONG)
    wait_for(lambda: second.claims)
    assert not runs(bench.given("rank0")["pid"])  # what is left of the ranks has ended with it
    assert connection.deaths.empty()


def test_the_end_of_an_agents_log_is_told_when_it_is_asked_for(bench, worker):
    _, connection = started(bench, worker)
    connection.events.put(("log wanted", "1"))
    assert connection.logs.get(timeout=LONG) == (1, "rank1 is here")
    connection.events.put(("log wanted", "7"))  # of no rank that is here
    assert connection.logs.get(timeout=LONG) == (7, "")
    os.kill(bench.given("rank1")["pid"], signal.SIGKILL)
    assert connection.deaths.get(timeout=LONG)[0] == 1
    connection.events.put(("log wanted", "1"))  # asked too late: its end has been told with its log
    assert connection.logs.get(timeout=LONG) == (1, "")


def test_the_schedulers_death_is_the_groups(bench, worker):
    _, connection = started(bench, worker)
    os.kill(bench.given("scheduler")["pid"], signal.SIGKILL)
    rank, text = connection.deaths.get(timeout=LONG)
    assert rank == 0 and text.startswith("MindSpore's scheduler, which the machine of rank 0 runs, was killed")


def test_an_agent_that_cannot_load_fails_the_first_start(bench, worker):
    failing = bench.model("b.mindir", "raise SystemExit('Load model failed, b.mindir: it is no model')")
    launcher = bench.start(worker, [bench.model("a.mindir"), failing])
    connection = worker.connections.get(timeout=LONG)
    wait_for(lambda: connection.claims)
    connection.launch()
    assert connection.deaths.get(timeout=LONG)[0] == 1
    connection.end()
    with pytest.raises(RuntimeError, match=r"The agents cannot be started: the agent of rank 1 ended with exit code 1"):
        launcher.wait_registered()
    assert "Load model failed, b.mindir: it is no model" in launcher.stopped
    assert not runs(bench.given("rank0")["pid"])


def test_an_agent_that_leaves_because_the_worker_is_gone_is_no_death(bench, worker):
    models = [bench.model("a.mindir"), bench.model("b.mindir", "# registered\nimport os; os._exit(75)")]
    bench.start(worker, models)
    connection = worker.connections.get(timeout=LONG)
    wait_for(lambda: connection.claims)
    connection.launch()
    pid = bench.given("rank1")["pid"]
    wait_for(lambda: not runs(pid))
    connection.end()
    wait_for(lambda: connection.closed)
    assert connection.deaths.empty()


def test_a_worker_that_is_not_there_is_waited_for(bench, worker, monkeypatch):
    monkeypatch.setattr(_launcher, "_RETRY_SECONDS", 0.05)
    worker.there = False
    launcher = bench.start(worker, [bench.model("a.mindir"), bench.model("b.mindir")])
    time.sleep(0.3)
    worker.there = True
    connection = worker.connections.get(timeout=LONG)
    wait_for(lambda: connection.claims)
    connection.launch()
    launcher.wait_registered()


def test_a_worker_that_never_comes_is_given_up(bench, worker, monkeypatch):
    monkeypatch.setattr(_launcher, "_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(_launcher, "_FIRST_CONNECT_SECONDS", 0.2)
    worker.there = False
    launcher = bench.start(worker, [bench.model("a.mindir"), bench.model("b.mindir")])
    with pytest.raises(RuntimeError, match=r"no distributed worker at 127.0.0.1:6200 after .*: connection refused"):
        launcher.wait_registered()


def test_tls_files_of_no_use_end_the_first_start_at_once(bench, worker):
    launcher = Launcher(
        LauncherSettings(
            "127.0.0.1:1", check_agent_files([bench.model("a.mindir")], None), certificate="/no.crt", use_tls=True
        ),
        bench.directory / "serving_logs",
        lambda: 0,
    )
    launcher.start()
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match=r"cannot be started with this ssl_config: .*'/no.crt': No such file"):
        launcher.wait_registered()
    assert time.monotonic() - begun < _launcher._FIRST_CONNECT_SECONDS
    launcher.join()


def test_a_refusal_that_stays_is_told(bench, worker, monkeypatch):
    monkeypatch.setattr(_launcher, "_FIRST_REFUSAL_SECONDS", 0.0)
    launcher = bench.start(worker, [bench.model("a.mindir"), bench.model("b.mindir")])
    connection = worker.connections.get(timeout=LONG)
    connection.events.put(("refused", "rank 0 has been claimed by 10.0.0.7"))
    with pytest.raises(RuntimeError, match=r"refuses the agents: rank 0 has been claimed by 10.0.0.7"):
        launcher.wait_registered()


def test_the_files_are_those_of_the_ranks_of_this_machine(bench, worker):
    launcher = bench.start(worker, [bench.model("a.mindir")])
    with pytest.raises(RuntimeError, match=r"'model_files' should have one element .* which are 2, but 1 were given"):
        launcher.wait_registered()


def test_a_machine_without_ranks_is_told(bench):
    launcher = bench.start(Worker(configuration(ips=("240.0.0.1", "240.0.0.2"))), [bench.model("a.mindir")])
    with pytest.raises(RuntimeError, match="No address of the rank table is of this machine"):
        launcher.wait_registered()
    assert launcher.failed


@pytest.mark.parametrize("rank_start", [0, 1])
def test_agent_ip_is_an_address_of_this_machine(bench, rank_start):
    worker = Worker(configuration(ips=("10.0.0.1", "10.0.0.2")))
    launcher = bench.start(worker, [bench.model("a.mindir")], agent_ip="240.0.0.1", rank_start=rank_start)
    with pytest.raises(RuntimeError, match=r"'agent_ip' should be an address of this machine, .*, but '240.0.0.1' is"):
        launcher.wait_registered()


def test_a_machine_without_rank_0_runs_no_scheduler(bench):
    worker = Worker(configuration(ips=("127.0.0.1", "127.0.0.2")))
    bench.start(worker, [bench.model("b.mindir")], agent_ip="127.0.0.2", rank_start=1)
    connection = worker.connections.get(timeout=LONG)
    wait_for(lambda: connection.claims)
    assert connection.claims == [([1], "127.0.0.2", None)]
    connection.events.put(("launch", json.dumps({"token": "t", "scheduler": "127.0.0.1:7007"})))
    environment = bench.given("rank1")["environment"]
    assert (environment["MS_SCHED_HOST"], environment["MS_SCHED_PORT"]) == ("127.0.0.1", "7007")
    assert sorted(path.name for path in bench.out.iterdir()) == ["rank1.0"]


def test_logs_are_for_their_owner_alone(bench, worker):
    started(bench, worker)
    for name in ("rank0", "rank1", "scheduler"):
        wait_for(lambda name=name: f"{name} is here" in bench.log(name))
        mode = (bench.directory / "serving_logs" / f"log_agent_{name}.log").stat().st_mode
        assert stat.S_IMODE(mode) == 0o600


def test_the_key_reaches_agents_through_their_socket_alone(bench, worker):
    started(bench, worker, dec_key=KEY, dec_mode="AES-CBC")
    given = bench.given("rank0")
    assert given["order"]["dec_mode"] == "AES-CBC"
    text = json.dumps({**given, "log": bench.log("rank0")})
    for secret in (KEY.hex(), KEY.decode("latin1"), repr(KEY)):
        assert json.dumps(secret)[1:-1] not in text
    command_line = Path(f"/proc/{given['pid']}/cmdline").read_bytes()
    assert KEY not in command_line and KEY not in Path(f"/proc/{given['pid']}/environ").read_bytes()
    assert "dec_key" not in repr(LauncherSettings("a:1", check_agent_files(["a.mindir"], None), dec_key=KEY))


def test_agents_die_with_their_launcher(bench, tmp_path):
    """Killed by signal 9, so that no code of the launcher's runs."""
    marker = tmp_path / "child"
    child_program = f"import os, time; open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    bench.model("m", f"import subprocess; subprocess.Popen([sys.executable, '-c', {child_program!r}])")
    program = f"""
import os, sys, time
from mindspore_serving._native import load_native
from mindspore_serving.server.distributed._agent_order import AgentOrder
from mindspore_serving.server.distributed._agent_process import AgentProcess, ProcessPlan
log = load_native("_core").LogFile({str(tmp_path / "log")!r}, False)
order = AgentOrder(0, "CPU", models=({str(tmp_path / "m")!r},)).to_bytes(None)
command = [sys.executable, {str(tmp_path / "agent.py")!r}]
process = AgentProcess(ProcessPlan("agent", 0, command, dict(os.environ), order, log), None)
time.sleep(600)
"""
    launcher = subprocess.Popen([sys.executable, "-c", program])
    try:
        agent = bench.given("rank0")["pid"]
        wait_for(lambda: marker.exists() and marker.read_text())
        child = int(marker.read_text())
        assert runs(agent) and runs(child)
    finally:
        launcher.kill()
        launcher.wait()
    wait_for(lambda: not runs(agent) and not runs(child))
