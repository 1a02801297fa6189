"""Limits that users set: who passes one is told at once, with the reason, and the others are served on."""

import gzip
import queue
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests

from mindspore_serving.client import Client
from servables import make_servable
from servers import ServerProcess

# Without a model. `hold` waits until the file with the name of its text is there.
CONFIG = """
import os
import time
from mindspore_serving.server import register


def wait_for(path):
    until = time.monotonic() + 120
    while not os.path.exists(path) and time.monotonic() < until:
        time.sleep(0.01)
    return path


def size_of(data):
    return data.size


@register.register_method(output_names=["path"])
def hold(path):
    path = register.add_stage(wait_for, path, outputs_count=1)
    return path


@register.register_method(output_names=["size"])
def measure(data):
    size = register.add_stage(size_of, data, outputs_count=1)
    return size
"""

SCRIPT = """
import os
from mindspore_serving import server

folder = os.path.dirname(os.path.abspath(__file__))
server.start_servables(server.ServableStartConfig(folder, "waits"))
server.master.context.set_max_enqueued_requests(3)
server.master.context.set_max_bytes_in_flight(8 << 20)
limits = server.ServerLimits(max_connections=8, max_header_bytes=4096, request_timeout_seconds=1)
server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"], limits=limits)
server.start_restful_server(os.environ["SERVING_REST_ADDRESS"], limits=limits)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("limits")
    make_servable(folder, "waits", CONFIG, {})
    script = folder / "start.py"
    script.write_text(SCRIPT)
    with ServerProcess(script) as running:
        yield running


def test_TooManyPendingRequests_AreRefusedAtOnceAndTheRestIsAnswered(server: ServerProcess, tmp_path: Path) -> None:
    gate = tmp_path / "open"
    answers: queue.Queue[object] = queue.Queue()

    def hold() -> None:
        with Client(server.grpc_address, "waits", "hold") as client:
            answers.put(client.infer({"path": str(gate)}))

    clients = [threading.Thread(target=hold) for _ in range(6)]
    for one in clients:
        one.start()
    for _ in range(3):  # three wait in the server, the others are answered without waiting for them
        assert answers.get(timeout=60) == {
            "error": "Grpc Error, (8, 'resource exhausted'), enqueued requests count exceeds the limit 3"
        }
    url = f"http://{server.rest_address}/model/waits:measure"
    named = {"x-request-id": "night-shift-7"}
    refused = requests.post(url, json={"instances": {"data": [1, 2]}}, headers=named, timeout=60)
    assert refused.status_code == 429
    assert refused.headers["X-Request-Id"] == "night-shift-7"
    assert refused.headers["Retry-After"] == "1"
    assert refused.json() == {"error_msg": "enqueued requests count exceeds the limit 3"}
    gate.touch()
    assert [answers.get(timeout=60) for _ in range(3)] == [[{"path": str(gate)}]] * 3
    for one in clients:
        one.join()
    accepted = requests.post(url, json={"instances": {"data": [1, 2]}}, timeout=60)
    assert accepted.json() == {"instances": [{"size": 2}]}


def test_TooManyBytesInFlight_AreRefusedWithTheNumbers(server: ServerProcess) -> None:
    client = Client(server.grpc_address, "waits", "measure")
    for count in (5, 9):  # the message and its tensors together; the message alone
        answer = client.infer({"data": np.zeros(count << 20, np.int8)})
        assert "Grpc Error, (8, 'resource exhausted'), bytes in flight exceed the limit 8388608: " in answer["error"]
    over_rest = requests.post(f"http://{server.rest_address}/model/waits:measure", data=b" " * (9 << 20), timeout=60)
    assert over_rest.status_code == 429
    assert "bytes in flight exceed the limit 8388608" in over_rest.json()["error_msg"]
    assert client.infer({"data": np.zeros(2 << 20, np.int8)}) == [{"size": 2 << 20}]


def wait_for_health(server: ServerProcess, status: int) -> None:
    until = time.monotonic() + 60
    while requests.get(f"http://{server.rest_address}/health/ready", timeout=60).status_code != status:
        assert time.monotonic() < until, "not in time"


def test_ConnectionsOverTheLimit_AreClosedOrTold(server: ServerProcess) -> None:
    host, port = server.rest_address.split(":")
    idle = [socket.create_connection((host, int(port)), timeout=60) for _ in range(8)]
    try:
        wait_for_health(server, 503)
    finally:
        for one in idle:
            one.close()
    wait_for_health(server, 200)  # the server has seen them go


def test_LargeHeadersAndSlowRequests_AreEnded(server: ServerProcess) -> None:
    large = requests.get(f"http://{server.rest_address}/health/live", headers={"x": "y" * 5000}, timeout=60)
    assert large.status_code == 431
    host, port = server.rest_address.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as slow:
        slow.sendall(b"POST /model/waits:measure HTTP/1.1\r\nContent-Length: 10\r\n\r\n1")
        assert slow.recv(12) == b"HTTP/1.1 408"


def test_GzipBodiesAndHeadRequests(server: ServerProcess) -> None:
    url = f"http://{server.rest_address}/model/waits:measure"
    body = gzip.compress(b'{"instances":{"data":[' + b"1," * 5000 + b"1]}}")
    answer = requests.post(url, data=body, headers={"Content-Encoding": "gzip"}, timeout=60)
    assert answer.json() == {"instances": [{"size": 5001}]}
    assert answer.headers["Date"].endswith(" GMT")
    assert requests.post(url, data=body[:50], headers={"Content-Encoding": "gzip"}, timeout=60).status_code == 400
    ready = requests.head(f"http://{server.rest_address}/health/ready", timeout=60)
    assert (ready.status_code, ready.content) == (200, b"")
