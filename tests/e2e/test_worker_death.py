"""Workers that die or hang in a user's code: what clients are told, who is restarted, what is refused from then on."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mindspore_serving.client import Client
from servables import make_servable
from servers import ServerProcess

# A servable of plain Python that does what a request says.
CONFIG = """
import ctypes, os, signal, time
from mindspore_serving.server import register

WAYS = {
    1: lambda: os.kill(os.getpid(), signal.SIGKILL),
    2: lambda: ctypes.string_at(0),
    3: lambda: os._exit(3),
    4: lambda: os.abort(),
    5: lambda: time.sleep(3600),
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
    mixed = client.infer([order(7), order(number), order(8)])
    assert [int(mixed[0]["y"]), int(mixed[2]["y"])] == [1007, 1008] and "refused" in mixed[1]["error"]
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
