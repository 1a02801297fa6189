"""A worker that says it is ready serves, and counts as ready, only once a probe has gone through it."""

import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np

from mindspore_serving.client import Client
from servables import make_servable
from servers import ServerProcess

# The worker is held after it has said that it is ready and before it serves, until the file `go` is there.
CONFIG = """
import os
import time

from mindspore_serving import _core
from mindspore_serving.server import register

FOLDER = os.path.dirname(os.path.abspath(__file__))
run = _core.Worker.run


def run_when_told(worker):
    with open(os.path.join(FOLDER, "said_ready"), "a") as file:
        print(os.getpid(), file=file)
    while not os.path.exists(os.path.join(FOLDER, "go")):
        time.sleep(0.01)
    return run(worker)


_core.Worker.run = run_when_told


def negated(x):
    return -x


@register.register_method(output_names=["y"])
def negate(x):
    return register.add_stage(negated, x, outputs_count=1)
"""

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"  # HealthCheckResponse

SCRIPT = """
import os
from mindspore_serving import server

folder = os.path.dirname(os.path.abspath(__file__))
server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"])
server.start_restful_server(os.environ["SERVING_REST_ADDRESS"])
server.start_servables(server.ServableStartConfig(folder, "signs", device_ids=0))
print("the servable is ready", flush=True)
"""


def wait_for(condition: Callable[[], object], seconds: float = 120) -> object:
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value


def rest_ready(server: ServerProcess) -> bool:
    try:
        with urllib.request.urlopen(f"http://{server.rest_address}/health/ready", timeout=60) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        assert error.code == 503
        return False


def test_ReadyWaitsForTheProbe_OfTheFirstAndOfARestartedWorker(tmp_path: Path) -> None:
    folder = make_servable(tmp_path, "signs", CONFIG, {})
    script = tmp_path / "start.py"
    script.write_text(SCRIPT)
    said, go = folder / "said_ready", folder / "go"

    def workers_that_said_ready() -> list[str]:
        return said.read_text().split() if said.exists() else []

    with ServerProcess(script) as server, grpc.insecure_channel(server.grpc_address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")

        def grpc_ready(name: str) -> bool:
            request = bytes([10, len(name)]) + name.encode() if name else b""
            status = check(request, timeout=60)
            assert status in (SERVING, NOT_SERVING)
            return bool(status == SERVING)

        client = Client(server.grpc_address, "signs", "negate")
        assert wait_for(lambda: len(workers_that_said_ready()) == 1)
        for _ in range(20):
            assert not rest_ready(server)
            assert not grpc_ready("")
            assert not grpc_ready("signs")
        assert "servable is not available" in str(client.infer({"x": np.float32([1])}))
        assert "the servable is ready" not in server.log
        go.touch()
        assert wait_for(lambda: "the servable is ready" in server.log)
        assert rest_ready(server) and grpc_ready("") and grpc_ready("signs")
        assert client.infer({"x": np.float32([1])})[0]["y"].tolist() == [-1]

        go.unlink()
        (pid,) = server.worker_pids()
        os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda: len(workers_that_said_ready()) == 2)
        for _ in range(20):
            assert not rest_ready(server)
            assert not grpc_ready("signs")
        go.touch()
        assert wait_for(lambda: rest_ready(server) and grpc_ready("signs"))
        assert client.infer({"x": np.float32([2])})[0]["y"].tolist() == [-2]
