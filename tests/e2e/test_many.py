"""Several servables, versions and copies side by side in one server."""

import collections
import threading
import time
from pathlib import Path

import pytest

from checked_load import ask_once, grpc_sender
from driven_server import START, DrivenServer, write_numbers
from mindspore_serving.client import Client
from servables import add_config, make_servable

WHO_CONFIG = """
import os, time
from mindspore_serving.server import register

def who(x):
    time.sleep(x.item())
    return os.environ["SERVING_DEVICE_ID"], os.getpid()

@register.register_method(["device", "pid"])
def answer(x):
    device, pid = register.call_preprocess(who, x)
    return device, pid
"""

MANY = START.replace(
    "server.start_servables(config())",
    """
server.start_servables([
    config("who", [0, 3]),
    config("who", (3, 5)),
    config("who", 7, version_number=1),
    config("numbers", (0, 1), version_number=1),
])
""",
)


@pytest.fixture
def many(tmp_path: Path):
    make_servable(tmp_path, "who", WHO_CONFIG, {})
    for version in (1, 2):
        (tmp_path / "who" / str(version)).mkdir()
    write_numbers(tmp_path, 4, 1)
    with DrivenServer(tmp_path, MANY) as server:
        yield server


def who_answers(server: DrivenServer, version: int, count: int, seconds: float) -> list[tuple[str, int]]:
    """`count` requests at the same time; device and process of each answer."""
    answers = []

    def ask() -> None:
        (reply,) = Client(server.grpc_address, "who", "answer", version_number=version).infer([{"x": seconds}])
        answers.append((reply["device"], int(reply["pid"])))

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def test_EveryDeviceOfListsTuplesAndMergedConfigsIsAWorkerCopy(many, tmp_path):
    assert len(many.worker_pids()) == 6
    logs = {path.name for path in (tmp_path / "serving_logs").iterdir()}
    assert logs == {
        *(f"log_who_device{device}_version2.log" for device in (0, 3, 5)),
        "log_who_device7_version1.log",
        *(f"log_numbers_device{device}_version1.log" for device in (0, 1)),
    }
    # Three at a time: the least busy copy is always one that has none.
    answers = [answer for _ in range(3) for answer in who_answers(many, 0, 3, 1.0)]
    devices = collections.Counter(device for device, _ in answers)
    assert set(devices) == {"0", "3", "5"} and len({pid for _, pid in answers}) == 3


def test_VersionsSideBySide_AreFoundByNumberAndAsTheNewest(many):
    assert {device for device, _ in who_answers(many, 1, 2, 0)} == {"7"}
    assert "7" not in {device for device, _ in who_answers(many, 0, 4, 0)}
    assert "7" not in {device for device, _ in who_answers(many, 2, 4, 0)}
    assert ask_once(grpc_sender(many.grpc_address, version=1)) == 4.0
    reply = Client(many.grpc_address, "who", "answer", version_number=3).infer([{"x": 0.0}])
    assert "servable is not available: version 3 of servable 'who' is not available" in reply["error"]


def test_NewestGoesToTheNextVersion_WhenItIsTakenOut(many):
    many.call("server.stop_servable('who')")
    assert {device for device, _ in who_answers(many, 0, 2, 0)} == {"7"}
    deadline = time.monotonic() + 30
    while len(many.worker_pids()) > 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_ModelOnSeveralDevicesOfACpu_AnswersAlike(tmp_path, models):
    make_servable(tmp_path, "adder", add_config("add"), {1: models / "add.mindir"})
    ones = [[1.0, 1.0], [1.0, 1.0]]
    with DrivenServer(tmp_path, START.replace("config()", 'config("adder", (0, 4))')) as server:
        assert len(server.worker_pids()) == 2
        send = grpc_sender(server.grpc_address, "adder", "add", x1=ones, x2=ones)()
        assert {send() for _ in range(20)} == {2.0}
