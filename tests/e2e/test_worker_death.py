"""Workers that die or hang in a user's code: what clients are told, who is restarted, what is refused from then on."""

import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mindspore_serving.client import Client
from servables import make_servable
from servers import ServerProcess, session_pids

# A servable of plain Python that does what a request says.
CONFIG = """
import ctypes, os, signal, subprocess, time
from mindspore_serving.server import register

WAYS = {
    1: lambda: os.kill(os.getpid(), signal.SIGKILL),
    2: lambda: ctypes.string_at(0),
    3: lambda: os._exit(3),
    4: lambda: os.abort(),
    5: lambda: time.sleep(3600),
    6: lambda: ctypes.PyDLL(None).sleep(3600),  # with the GIL
    7: lambda: subprocess.Popen(["sleep", "3600"]),
    8: lambda: time.sleep(2),
}


def obey(x):
    way = WAYS.get(int(x))
    if way is not None:
        print("obeying order", int(x), flush=True)
        way()
    return x + 1000


@register.register_method(output_names=["y"])
def work(x):
    return register.add_stage(obey, x, outputs_count=1)


@register.register_method(output_names=["y"], timeout_seconds=1)
def work_in_time(x):
    return register.add_stage(obey, x, outputs_count=1)
"""

SCRIPT = """
import os
from mindspore_serving import server

folder = os.path.dirname(os.path.abspath(__file__))
server.start_servables(server.ServableStartConfig(folder, "doer", device_ids={devices}))
server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"])
server.start_restful_server(os.environ["SERVING_REST_ADDRESS"])
"""


def start_doer(folder: Path, start_server: Callable[..., ServerProcess], devices: object = (0, 1), **kwargs: object):
    make_servable(folder, "doer", CONFIG, {})
    script = folder / "start.py"
    script.write_text(SCRIPT.format(devices=devices))
    server = start_server(script, **kwargs)
    return server, Client(server.grpc_address, "doer", "work")


def order(number: int) -> dict[str, np.ndarray]:
    return {"x": np.array(number, np.int32)}


def wait_for(condition: Callable[[], object], seconds: float = 60) -> object:
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value


def served(client: Client, number: int = 100) -> bool:
    answer = client.infer(order(number))
    return isinstance(answer, list) and int(answer[0]["y"]) == number + 1000


@pytest.mark.parametrize(
    ("number", "cause"),
    [(1, "SIGKILL"), (2, "SIGSEGV"), (3, "exited with status 3"), (4, "SIGABRT")],
    ids=["SIGKILL", "SIGSEGV", "os._exit", "abort"],
)
def test_RequestThatKillsWorkers_IsRefusedAfterThreeDeaths_OthersGoOn(tmp_path, start_server, number, cause):
    server, client = start_doer(tmp_path, start_server)
    assert served(client)
    errors = []
    for _ in range(10):
        assert wait_for(lambda: served(client)), server.log
        errors.append(client.infer(order(number))["error"])
        if "refused" in errors[-1]:
            break
    assert "refused" in errors[-1], errors
    assert len(errors) <= 4 and all(cause in error for error in errors[:-1]), errors
    assert server.worker_logs().count(f"obeying order {number}") == 3
    assert f"obeying order {number}" in server.log, "the log's last lines are quoted"
    assert not any("obeying" in error for error in errors), "and not to clients"
    # It is refused at once, takes nobody along, and whoever shares its request is served.
    pids = server.worker_pids()
    assert "refused" in client.infer(order(number))["error"]
    mixed = client.infer([order(17), order(number), order(18)])
    assert [int(mixed[0]["y"]), int(mixed[2]["y"])] == [1017, 1018] and "refused" in mixed[1]["error"]
    assert set(pids) <= set(server.worker_pids())


def test_RequestsBesideADeadlyOne_AreAnswered(tmp_path, start_server):
    server, client = start_doer(tmp_path, start_server)
    assert served(client)
    pending = [client.infer_async(order(1000 + i)) for i in range(50)]
    deadly = client.infer_async(order(3))
    pending += [client.infer_async(order(2000 + i)) for i in range(50)]
    answers = [one.result() for one in pending]
    assert "exited with status 3" in deadly.result()["error"]
    wrong = [answer for answer in answers if not isinstance(answer, list)]
    # Both workers may be gone before the last of them is taken.
    assert all("not available" in answer["error"] or "exited" in answer["error"] for answer in wrong), wrong
    assert [int(answer[0]["y"]) for answer in answers[:50] if answer not in wrong] == [
        2000 + i for i, answer in enumerate(answers[:50]) if answer not in wrong
    ]
    assert wait_for(lambda: len(server.worker_pids()) == 2 and served(client)), server.log


def test_WorkerKilledFromOutside_RequestIsAnsweredByAnother(tmp_path, start_server):
    server, client = start_doer(tmp_path, start_server)
    assert served(client)
    for worker in server.worker_pids()[:1]:
        os.kill(worker, signal.SIGKILL)
    for i in range(200):
        assert served(client, 100 + i)


# ---------------------------------------------------------------------------------------------- hanging
@pytest.mark.parametrize("number", [5, 6], ids=["without the GIL", "with the GIL"])
def test_CallOverItsTimeOut_IsAnsweredAndItsWorkerStartedAgain_OthersGoOn(tmp_path, start_server, number):
    server, _ = start_doer(tmp_path, start_server)
    client = Client(server.grpc_address, "doer", "work_in_time")
    assert served(client)
    before = set(server.worker_pids())
    hung = client.infer_async(order(number))
    others = [client.infer_async(order(1000 + i)) for i in range(40)]
    assert "time-out of the method" in hung.result()["error"]
    for i, other in enumerate(others):
        answer = other.result()
        assert int(answer[0]["y"]) == 2000 + i, answer
    assert wait_for(lambda: len(server.worker_pids()) == 2 and not before <= set(server.worker_pids())), server.log
    assert wait_for(lambda: served(client)), server.log
    assert "time-out" in server.log


def test_OnlyTheHungInstanceOfARequestFails(tmp_path, start_server):
    server, _ = start_doer(tmp_path, start_server)
    client = Client(server.grpc_address, "doer", "work_in_time")
    answer = client.infer([order(21), order(5), order(22)])
    assert [int(answer[0]["y"]), int(answer[2]["y"])] == [1021, 1022], answer
    assert "time-out of the method" in answer[1]["error"]


PIPELINE = """
import time
from mindspore_serving.server import register


def sleep(x):
    time.sleep(600)
    return x


@register.register_method(output_names=["y"])
def sleep_on(x):
    return register.add_stage(sleep, x, outputs_count=1)


sleeper = register.PipelineServable(servable_name="doer", method="sleep_on")


@register.register_pipeline(output_names=["y"], timeout_seconds=1)
def work(x):
    if int(x) == 1:
        time.sleep(600)
    if int(x) == 2:
        sleeper.run(x)  # what it waits for counts
    return x + 1000
"""


@pytest.mark.parametrize("number", [1, 2], ids=["itself", "in a call"])
def test_PipelineOverItsTimeOut_IsAnsweredAndItsWorkerStartedAgain(tmp_path, start_server, number):
    make_servable(tmp_path, "doer", PIPELINE, {})
    script = tmp_path / "start.py"
    script.write_text(SCRIPT.format(devices=(0,)))
    server = start_server(script)
    client = Client(server.grpc_address, "doer", "work")
    assert served(client)
    before = server.worker_pids()
    assert "time-out of the method" in client.infer(order(number))["error"]
    assert wait_for(lambda: served(client)), server.log
    assert server.worker_pids() != before


def test_LongCallOfAMethodWithoutTimeOut_IsLeftAlone(tmp_path, start_server):
    server, client = start_doer(tmp_path, start_server, env={"MSSERVING_WORKER_SILENCE_SECONDS": "1"})
    before = server.worker_pids()
    assert served(client, 8)  # two seconds, twice the silence that is allowed
    assert server.worker_pids() == before


def test_StoppedWorker_IsKilledAndItsRequestsAnsweredByAnother(tmp_path, start_server):
    server, client = start_doer(tmp_path, start_server, env={"MSSERVING_WORKER_SILENCE_SECONDS": "2"})
    assert served(client)
    before = server.worker_pids()
    os.kill(before[0], signal.SIGSTOP)
    pending = [client.infer_async(order(1000 + i)) for i in range(20)]
    for i, one in enumerate(pending):
        answer = one.result()
        assert int(answer[0]["y"]) == 2000 + i, answer
    assert wait_for(lambda: before[0] not in server.worker_pids() and len(server.worker_pids()) == 2), server.log
    assert "no sign of life" in server.log


# ---------------------------------------------------------------------------------------------- the server's own death
@pytest.mark.parametrize("number", [5, 6], ids=["busy", "busy with the GIL"])
def test_ServerKilledOutright_BusyWorkersAndWhatTheyStartedEndToo(tmp_path, start_server, number):
    folder = tmp_path / "cwd"
    folder.mkdir()
    shared_memory = set(os.listdir("/dev/shm"))
    server, client = start_doer(tmp_path, start_server, devices=0, cwd=folder)
    assert served(client, 7)
    busy = client.infer_async(order(number))
    assert wait_for(lambda: f"obeying order {number}" in server.worker_logs())
    assert len(server.worker_pids()) == 2, "a worker and what it has started"
    session = server.pid
    server.send_signal(signal.SIGKILL)
    server.wait_exit()
    assert wait_for(lambda: not session_pids(session), 30)  # a second on a machine with nothing else to do
    assert set(os.listdir("/dev/shm")) <= shared_memory
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert all(name.startswith("log_doer") or name == "start.log" for name in left), left
    del busy


# ---------------------------------------------------------------------------------------------- readiness and logs
def test_ReadyOnlyWhileAWorkerIs(tmp_path, start_server):
    server, client = start_doer(tmp_path, start_server)

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://{server.rest_address}/health/ready", timeout=10) as answer:
                return answer.status == 200
        except urllib.error.HTTPError:
            return False

    first, second = server.worker_pids()
    assert ready()
    os.kill(first, signal.SIGKILL)
    assert wait_for(lambda: first not in server.worker_pids())
    assert ready(), "one is enough"
    os.kill(second, signal.SIGKILL)
    assert wait_for(lambda: not ready())
    assert wait_for(ready)
    assert served(client)


def test_EventsAreLinesWithFields_LogsBelongToTheUserAlone(tmp_path, start_server):
    server, client = start_doer(tmp_path, start_server, env={"MS_SUBMODULE_LOG_v": "{SERVING:1}", "GLOG_v": "3"})
    client.infer(order(3))
    assert wait_for(lambda: "event=worker_lost" in server.log)
    line = next(line for line in server.log.splitlines() if "event=worker_lost" in line)
    assert re.match(r"\[ERROR\] SERVING\(\d+,\d+\):", line)
    fields = ("servable=doer", "version=1", 'worker="doer version 1 device', "pid=", "restarts=1", "restart_in_ms=1000")
    assert all(field in line for field in fields), line
    assert 'cause="its process exited with status 3"' in line
    assert "[INFO] SERVING(" in server.log, "MS_SUBMODULE_LOG_v wins over GLOG_v"
    for log in tmp_path.glob("serving_logs/*"):
        assert log.stat().st_mode & 0o777 == 0o600
