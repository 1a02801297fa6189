"""Extra workers: processes that run Python stages and leave the models to the workers with a device."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mindspore_serving.client import Client
from servables import add_config, make_script, make_servable
from servers import ServerProcess

EXTRAS = 3

# addb: batches of 4. Every method says which process ran its Python stage.
CONFIG = """
import os
import sys
import time

import numpy as np
from mindspore_serving.server import register

model = register.declare_model("addb.mindir", "MindIR", with_batch_dim=True)


def here():
    return np.int64(os.getpid())


def to_float32(x1, x2):
    if (x1 < 0).any():
        raise ValueError("negative numbers are not for us")
    return x1.astype(np.float32), x2.astype(np.float32)


def double(y):
    return y * 2, here()


def slowly(x1, x2):
    time.sleep(0.05)
    return x1.astype(np.float32), x2.astype(np.float32)


def twice(x1, x2):
    first = model.call(x1, x2)
    both = model.call([[first, x2], [x1, first]])
    return both[0][0] + both[1][0], here()


def modules(x):
    return "mindspore" in sys.modules, os.environ.get("SERVING_DEVICE_ID", "none"), here()


@register.register_method(output_names=["y", "pid"])
def checked(x1, x2):
    x1, x2 = register.add_stage(to_float32, x1, x2, outputs_count=2)
    y = register.add_stage(model, x1, x2, outputs_count=1)
    y, pid = register.add_stage(double, y, outputs_count=2)
    return y, pid


@register.register_method(output_names=["y"])
def slow(x1, x2):
    x1, x2 = register.add_stage(slowly, x1, x2, outputs_count=2)
    y = register.add_stage(model, x1, x2, outputs_count=1)
    return y


@register.register_method(output_names=["y"])
def plain(x1, x2):
    y = register.add_stage(model, x1, x2, outputs_count=1)
    return y


@register.register_method(output_names=["y", "pid"])
def calls(x1, x2):
    y, pid = register.add_stage(twice, x1, x2, outputs_count=2)
    return y, pid


@register.register_method(output_names=["mindspore", "device", "pid"])
def about(x):
    mindspore, device, pid = register.add_stage(modules, x, outputs_count=3)
    return mindspore, device, pid
"""

PIPELINE_CONFIG = """
import os

import numpy as np
from mindspore_serving.server import register

register.declare_servable(servable_file="addb.mindir", model_format="MindIR", with_batch_dim=True)


@register.register_method(output_names=["y"])
def add(x1, x2):
    y = register.call_servable(x1, x2)
    return y


servable = register.PipelineServable(servable_name="pipes", method="add")


@register.register_pipeline(output_names=["y", "pid"])
def until_large(x1, x2):
    while x1.max() < 100:
        x1 = servable.run(x1, x2)
    return x1, np.int64(os.getpid())
"""

PYTHON_CONFIG = """
import os

import numpy as np
from mindspore_serving.server import register


def negate(x):
    return -x, np.int64(os.getpid())


@register.register_method(output_names=["y", "pid"])
def predict(x):
    y, pid = register.add_stage(negate, x, outputs_count=2)
    return y, pid
"""


def start(start_server, folder: Path, config: str, models: Path, *, workers: int = 1 + EXTRAS, name: str = "calc"):
    make_servable(folder, name, config, {1: models / "addb.mindir"})
    return start_server(make_script(folder, [f'"{name}", num_parallel_workers={workers}']))


@pytest.fixture(scope="module")
def calc(tmp_path_factory, models):
    """One device worker and three extra ones, shared by the tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("extra")
    make_servable(folder, "calc", CONFIG, {1: models / "addb.mindir"})
    with ServerProcess(make_script(folder, [f'"calc", num_parallel_workers={1 + EXTRAS}'])) as server:
        yield server


def numbers(seed: int, count: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    return [{name: random.integers(0, 1000, (2, 2)).astype(np.int32) for name in ("x1", "x2")} for _ in range(count)]


def pids_by_mindspore(server: ServerProcess, loaded: bool) -> list[int]:
    found = []
    for pid in server.worker_pids():
        try:
            maps = Path(f"/proc/{pid}/maps").read_text()
        except OSError:
            continue  # ended meanwhile
        if maps and ("/mindspore/" in maps) == loaded:
            found.append(pid)
    return found


def device_pids(server: ServerProcess) -> list[int]:
    return pids_by_mindspore(server, True)


def extra_pids(server: ServerProcess) -> list[int]:
    return pids_by_mindspore(server, False)


def rss_mb(pid: int) -> float:
    """Memory of the process's own; what it shares with others (libraries, tensors) is left out."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(fields[key].split()[0]) for key in ("Private_Clean", "Private_Dirty")) / 1024


def wait_until(condition, what: str, timeout: float = 90):
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


class Load:
    """Threads that call one method until they are told to stop, and check every answer."""

    def __init__(self, server: ServerProcess, method: str, threads: int, *, name: str = "calc", factor: int = 1):
        self.wrong: list[str] = []
        self.errors: list[str] = []
        self.right = 0
        self._stop = False
        self._pool = ThreadPoolExecutor(threads)
        self._futures = [self._pool.submit(self._run, server, name, method, factor, seed) for seed in range(threads)]

    def _run(self, server: ServerProcess, name: str, method: str, factor: int, seed: int) -> None:
        client = Client(server.grpc_address, name, method)
        round_number = 0
        while not self._stop:
            round_number += 1
            instances = numbers(seed * 10_000 + round_number, 1 + round_number % 5)
            results = client.infer(instances)
            if isinstance(results, dict):
                self.errors.append(results["error"])
                if "Grpc Error" in results["error"]:
                    return  # the server has gone
                time.sleep(0.05)
                continue
            for instance, result in zip(instances, results, strict=True):
                if "error" in result:
                    self.errors.append(result["error"])
                elif (result["y"] != (instance["x1"] + instance["x2"]) * factor).any():
                    self.wrong.append(str((instance, result)))
                else:
                    self.right += 1

    def stop(self) -> "Load":
        """Raises if a request is not answered."""
        self._stop = True
        for future in self._futures:
            future.result(timeout=60)
        self._pool.shutdown()
        return self


def test_processes_and_log_names(calc):
    logs = sorted(path.name for path in (calc.cwd / "serving_logs").iterdir())
    extra = [f"log_calc_extra{i}_version1.log" for i in range(EXTRAS)]
    assert logs == ["log_calc_device0_version1.log", *extra]
    assert len(calc.worker_pids()) == 1 + EXTRAS
    assert len(device_pids(calc)) == 1
    log = (calc.cwd / "serving_logs" / extra[0]).read_text()
    assert "Servable calc version 1 without a device" in log
    assert "device workers" in log


def test_an_extra_worker_has_no_mindspore_and_little_memory(calc):
    client = Client(calc.grpc_address, "calc", "about")
    told = {}
    for _ in range(200):
        with ThreadPoolExecutor(16) as pool:
            for result in pool.map(lambda _: client.infer([{"x": np.float32(1)}])[0], range(16)):
                told[int(result["pid"])] = (bool(result["mindspore"]), result["device"])
        if len(told) == 1 + EXTRAS:
            break
    (device,) = device_pids(calc)
    assert told[device] == (True, "0")
    extra = extra_pids(calc)
    assert len(extra) == EXTRAS
    assert {told[pid] for pid in extra if pid in told} == {(False, "none")}
    for pid in extra:
        assert rss_mb(pid) < 60, pid
    assert rss_mb(device) > 2 * max(rss_mb(pid) for pid in extra)


def test_32_requests_at_once_are_answered_right_by_all_workers(calc):
    client = Client(calc.grpc_address, "calc", "checked")
    pids = set()
    for round_number in range(20):
        with ThreadPoolExecutor(32) as pool:
            requests = [numbers(round_number * 32 + i, 1 + i % 7) for i in range(32)]
            for instances, results in zip(requests, pool.map(client.infer, requests), strict=True):
                for instance, result in zip(instances, results, strict=True):
                    np.testing.assert_array_equal(result["y"], (instance["x1"] + instance["x2"]) * 2)
                    pids.add(int(result["pid"]))
    assert pids <= set(calc.worker_pids())
    assert len(pids) >= 2


def test_a_row_fails_alone_wherever_it_runs(calc):
    client = Client(calc.grpc_address, "calc", "checked")
    for _ in range(8):  # several workers have their turn
        good, bad, shape = numbers(1, 3)
        bad["x1"][0, 0] = -1
        shape["x1"] = np.zeros((3, 2), np.int32)
        results = client.infer([good, bad, shape])
        np.testing.assert_array_equal(results[0]["y"], (good["x1"] + good["x2"]) * 2)
        assert "negative numbers are not for us" in results[1]["error"]
        assert "Given model input 0 size 24 not match the size 16 defined in model" in results[2]["error"]


def test_model_call_inside_a_stage(calc):
    client = Client(calc.grpc_address, "calc", "calls")
    pids = set()

    def infer(seed: int):
        x1, x2 = (one.astype(np.float32) for one in numbers(seed, 1)[0].values())
        return x1, x2, client.infer([{"x1": x1, "x2": x2}])[0]

    with ThreadPoolExecutor(32) as pool:
        for x1, x2, result in pool.map(infer, range(200)):
            np.testing.assert_array_equal(result["y"], (x1 + x2 + x2) + (x1 + x1 + x2))
            pids.add(int(result["pid"]))
    assert len(pids) >= 2
    error = client.infer([{"x1": np.zeros((3, 2), np.float32), "x2": np.zeros((2, 2), np.float32)}])["error"]
    assert "Given model input 0 size 24 not match the size 16 defined in model" in error


def test_a_method_of_a_model_alone_is_for_device_workers(calc):
    client = Client(calc.grpc_address, "calc", "plain")
    with ThreadPoolExecutor(32) as pool:
        requests = [[{k: v.astype(np.float32) for k, v in numbers(i, 1)[0].items()}] for i in range(200)]
        for (instance,), (result,) in zip(requests, pool.map(client.infer, requests), strict=True):
            np.testing.assert_array_equal(result["y"], instance["x1"] + instance["x2"])


def test_a_pipeline(start_server, tmp_path, models):
    server = start(start_server, tmp_path, PIPELINE_CONFIG, models, name="pipes")
    client = Client(server.grpc_address, "pipes", "until_large")
    x2 = np.full((2, 2), 7, np.float32)

    def infer(start_at: int):
        return client.infer([{"x1": np.full((2, 2), start_at, np.float32), "x2": x2}])[0]

    pids = set()
    with ThreadPoolExecutor(16) as pool:
        for start_at, result in enumerate(pool.map(infer, range(60))):
            expected = start_at
            while expected < 100:
                expected += 7
            np.testing.assert_array_equal(result["y"], np.full((2, 2), expected, np.float32))
            pids.add(int(result["pid"]))
    assert len(pids) >= 2


def test_models_alone_need_no_extra_worker(start_server, tmp_path, models):
    server = start(start_server, tmp_path, add_config("addb", with_batch_dim=True), models, name="only")
    assert len(server.worker_pids()) == 1
    assert [path.name for path in (tmp_path / "serving_logs").iterdir()] == ["log_only_device0_version1.log"]


def test_a_servable_without_a_model_has_python_workers_alone(start_server, tmp_path):
    make_servable(tmp_path, "python", PYTHON_CONFIG, {})
    server = start_server(make_script(tmp_path, ['"python", num_parallel_workers=3']))
    assert len(server.worker_pids()) == 3
    assert device_pids(server) == []
    client = Client(server.grpc_address, "python", "predict")
    pids = set()
    with ThreadPoolExecutor(16) as pool:
        for i, (result,) in enumerate(pool.map(lambda i: client.infer([{"x": np.int32(i)}]), range(300))):
            assert result["y"] == -i
            pids.add(int(result["pid"]))
    assert len(pids) >= 2


def test_an_extra_worker_killed_under_load(start_server, tmp_path, models):
    server = start(start_server, tmp_path, CONFIG, models)
    before = extra_pids(server)
    load = Load(server, "checked", 16, factor=2)
    wait_until(lambda: load.right > 200, "no answers")
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(extra_pids(server)) == EXTRAS and before[0] not in extra_pids(server), "not started again")
    right = load.right
    wait_until(lambda: load.right > right + 200, "no answers after the restart")
    load.stop()
    assert load.wrong == []
    assert load.errors == []  # all were given to other workers
    assert server.stop() == 0


def test_the_device_worker_killed_under_load(start_server, tmp_path, models):
    server = start(start_server, tmp_path, CONFIG, models)
    (device,) = device_pids(server)
    extra = extra_pids(server)
    load = Load(server, "checked", 16, factor=2)
    wait_until(lambda: load.right > 200, "no answers")
    os.kill(device, signal.SIGKILL)
    wait_until(lambda: load.errors, "the death of the only device worker was not noticed")
    (again,) = wait_until(lambda: device_pids(server), "not started again")
    assert again != device
    wait_until(lambda: (errors := len(load.errors)) and not time.sleep(1) and len(load.errors) == errors, "no end")
    right = load.right
    wait_until(lambda: load.right > right + 200, "no answers after the restart")
    load.stop()
    assert load.wrong == []
    known = ("servable is not available", "ended while it had")
    assert [error for error in set(load.errors) if not any(text in error for text in known)] == []
    assert sorted(extra_pids(server)) == sorted(extra)  # they have lived through it
    # They work for the new one.
    client = Client(server.grpc_address, "calc", "calls")
    pids = set()
    ones = np.ones((2, 2), np.float32)
    with ThreadPoolExecutor(16) as pool:
        for (result,) in pool.map(lambda _: client.infer([{"x1": ones, "x2": ones}]), range(100)):
            np.testing.assert_array_equal(result["y"], ones * 6)
            pids.add(int(result["pid"]))
    assert pids & set(extra)


def test_one_of_two_device_workers_killed_under_load(start_server, tmp_path, models):
    make_servable(tmp_path, "calc", CONFIG, {1: models / "addb.mindir"})
    script = make_script(tmp_path, ['"calc", num_parallel_workers=4'])
    script.write_text(script.read_text().replace("device_ids=0", "device_ids=(0, 1)"))
    server = start_server(script)
    devices = device_pids(server)
    assert (len(devices), len(extra_pids(server))) == (2, 2)
    load = Load(server, "checked", 16, factor=2)
    wait_until(lambda: load.right > 200, "no answers")
    os.kill(devices[0], signal.SIGKILL)
    wait_until(lambda: len(device_pids(server)) == 2, "not started again")
    right = load.right
    wait_until(lambda: load.right > right + 200, "no answers after the restart")
    load.stop()
    assert load.wrong == []
    assert load.errors == []  # rows and requests were given to the other one


def test_stop_under_load_answers_what_was_accepted(start_server, tmp_path, models):
    server = start(start_server, tmp_path, CONFIG, models)
    load = Load(server, "slow", 24)
    wait_until(lambda: load.right > 100, "no answers")
    server.send_signal(signal.SIGTERM)
    assert server.wait_exit(60) == 0
    load.stop()
    assert load.wrong == []
    # What had been accepted was answered: nothing broke off in a worker.
    assert [error for error in set(load.errors) if "servable is not available" in error or "ended while" in error] == []
    assert server.pids() == []
