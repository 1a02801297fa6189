"""A model that ends its process on certain inputs, which reach it through an extra worker.

The model is one of the AscendCL double (tests/support/fake_ascendcl): MindSpore has none that does so on demand.
"""

import re
import time
from pathlib import Path

import numpy as np
import pytest

from mindspore_serving.client import Client
from servables import make_om_servable, make_script
from servers import ServerProcess

DEVICES = 3
EXTRAS = 2
HELD = 7
DEADLY = 13

MODEL = """fake-om
batches 1,2,8
input x1 float32 -1,2
input x2 float32 -1,2
output y float32 -1,2
run add
abort_at 13
hold_at 7 {hold}
"""

CONFIG = """
import os

import numpy as np
from mindspore_serving.server import register

model = register.declare_model("deadly.om", "OM", with_batch_dim=True)


def prepare(x1, x2):
    print("prepared", int(x1[0]), flush=True)
    return x1.astype(np.float32), x2.astype(np.float32)


def tell(y):
    return y, np.int64(os.getpid())


@register.register_method(output_names=["y"])
def plain(x1, x2):
    return register.add_stage(model, x1, x2, outputs_count=1)


@register.register_method(output_names=["y", "pid"])
def mixed(x1, x2):
    x1, x2 = register.add_stage(prepare, x1, x2, outputs_count=2)
    y = register.add_stage(model, x1, x2, outputs_count=1)
    return register.add_stage(tell, y, outputs_count=2)
"""


class World:
    """Three device workers that can be held in a run, so that what comes meanwhile is known to go to extra workers."""

    def __init__(self, folder: Path, start_server, env: dict[str, str]):
        self._hold = folder / "hold"
        make_om_servable(folder, "calc", CONFIG, {"deadly.om": MODEL.format(hold=self._hold)})
        script = make_script(folder, [f'"calc", num_parallel_workers={DEVICES + EXTRAS}'])
        script.write_text(script.read_text().replace("device_ids=0", f"device_ids={tuple(range(DEVICES))}"))
        env = {**env, "FAKE_ASCENDCL_DEVICES": str(DEVICES), "MS_SUBMODULE_LOG_v": "{SERVING:1}"}
        env["MSSERVING_IO_THREADS"] = "1"  # else each loop has its own view of who is busy
        self.server: ServerProcess = start_server(script, env=env)
        self.plain = Client(self.server.grpc_address, "calc", "plain")
        self.mixed = Client(self.server.grpc_address, "calc", "mixed")

    def deaths(self) -> int:
        return self.server.log.count("event=worker_lost")

    def wait_for_all_workers(self) -> None:
        wait_until(
            lambda: self.server.log.count("event=worker_ready") == DEVICES + EXTRAS + self.deaths(), self.server.log
        )

    def hold_all_devices(self) -> list:
        """The requests that hold them."""
        self._hold.touch()
        held = Path(f"{self._hold}.held")
        held.unlink(missing_ok=True)
        requests = []
        for number in range(1, DEVICES + 1):
            requests.append(self.plain.infer_async(row(HELD, np.float32)))
            wait_until(lambda n=number: held.exists() and len(held.read_text().split()) == n, "a device is not held")
        assert len(set(held.read_text().split())) == DEVICES
        return requests

    def let_go(self) -> None:
        self._hold.unlink()

    def prepared(self, value: int) -> int:
        """How often an extra worker's Python stage has seen this value."""
        logs = (self.server.cwd / "serving_logs").glob("log_calc_extra*")
        return sum(len(re.findall(rf"^prepared {value}$", log.read_text(), re.MULTILINE)) for log in logs)


def wait_until(condition, what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def row(value: int, dtype=np.int32) -> dict[str, np.ndarray]:
    return {"x1": np.full(2, value, dtype), "x2": np.full(2, 1000, dtype)}


def check(answer: object, value: int) -> None:
    assert isinstance(answer, dict) and "error" not in answer, (value, answer)
    np.testing.assert_array_equal(answer["y"], np.full(2, 1000 + value, np.float32))


@pytest.fixture
def world(tmp_path, start_server, ascend) -> World:
    return World(tmp_path, start_server, ascend)


def test_RowsThatEndDeviceWorkersBehindExtraOnes_AreRefusedInTheEnd_NeighboursAreAnsweredRight(world):
    world.wait_for_all_workers()
    for turn, deaths in ((1, 2), (2, 4)):
        held = world.hold_all_devices()
        # To an extra worker: they alone are idle. Only then the others: calls may overtake each other on their way.
        deadly = world.mixed.infer_async([row(50), row(DEADLY), row(51)])
        wait_until(lambda n=turn: world.prepared(DEADLY) == n, "the deadly row did not come to an extra worker")
        before = world.server.worker_logs().count("prepared 1")
        neighbours = [(value, world.mixed.infer_async([row(value)])) for value in range(100, 140)]
        neighbours += [(value, world.plain.infer_async([row(value, np.float32)])) for value in range(140, 160)]
        wait_until(
            lambda n=before: world.server.worker_logs().count("prepared 1") >= n + 40, "not all are on their way"
        )
        world.let_go()
        first, refused, last = deadly.result()
        assert "the device worker ended while it had the model's inputs" in refused["error"]
        check(first, 50)
        check(last, 51)
        for value, request in [*neighbours, *((HELD, request) for request in held)]:
            check(request.result()[0], value)
        # Each time it was run twice, and nobody else was taken along: the extra workers live.
        wait_until(lambda n=deaths: world.deaths() == n, world.server.log)
        lost = re.findall(r'event=worker_lost .*worker="([^"]*)"', world.server.log)
        assert all("device" in label for label in lost), lost
        world.wait_for_all_workers()

    # Its inputs are remembered: refused, and only they.
    assert "event=inputs_refused" in world.server.log
    pids = world.server.worker_pids()
    assert len(pids) == DEVICES + EXTRAS
    for _ in range(3):
        assert "this instance is refused" in world.mixed.infer(row(DEADLY))["error"]
        before, refused, after = world.mixed.infer([row(60), row(DEADLY), row(61)])
        assert "this instance is refused" in refused["error"]
        check(before, 60)
        check(after, 61)
    assert world.prepared(DEADLY) == 2
    assert world.deaths() == 4
    assert sorted(world.server.worker_pids()) == sorted(pids)
    # All device workers are back and take rows of extra workers.
    held = world.hold_all_devices()
    requests = [(value, world.mixed.infer_async([row(value)])) for value in range(200, 240)]
    world.let_go()
    for value, request in requests:
        check(request.result()[0], value)
    for request in held:
        check(request.result()[0], HELD)
