"""A worker that the kernel kills for want of memory: the log and the client are told that this may be the reason."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mindspore_serving.client import Client
from servables import make_script, make_servable

LIMIT = 64 << 20  # for what the worker takes from then on
PIECE = 8 << 20
PIECES = 64  # and no more, should nobody stop it
HINT = "was killed by signal 9 (SIGKILL, Killed), perhaps by the kernel for want of memory"

CONFIG = f"""
from mindspore_serving.server import register


def eat(x):
    held = [b"x" * {PIECE} for _ in range({PIECES} if int(x) else 0)]
    return x + len(held)


@register.register_method(output_names=["y"])
def predict(x):
    return register.add_stage(eat, x, outputs_count=1)
"""


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group with LIMIT, of either version, under this process's own."""
    group = None
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "memory":
                group = Path(f"/sys/fs/cgroup/memory{path}/serving-oom-test-{time.time_ns()}")
            elif controllers == "" and group is None:
                group = Path(f"/sys/fs/cgroup{path}/serving-oom-test-{time.time_ns()}")
    try:
        assert group is not None, "there are none"
        group.mkdir()
    except (OSError, AssertionError) as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        limits = [group / "memory.max", group / "memory.limit_in_bytes"]
        limit = next((file for file in limits if file.exists()), None)
        if limit is None:
            pytest.skip("control groups have no memory controller here")
        limit.write_text(str(LIMIT))
        for file, value in (("memory.swap.max", 0), ("memory.memsw.limit_in_bytes", LIMIT)):
            if (group / file).exists():
                (group / file).write_text(str(value))
        yield group
    finally:
        until = time.monotonic() + 60
        while group.exists() and time.monotonic() < until:  # until the last process has left it
            with contextlib.suppress(OSError):
                group.rmdir()
            time.sleep(0.05)


def test_KilledForWantOfMemory_TheLogSaysThatItMayBeSo(tmp_path: Path, start_server, memory_group: Path) -> None:
    make_servable(tmp_path, "eater", CONFIG, {})
    server = start_server(make_script(tmp_path, ['"eater"']))
    with Client(server.grpc_address, "eater", "predict") as client:
        good = {"x": np.array(0, np.int32)}
        assert isinstance(client.infer(good), list)
        (worker,) = server.worker_pids()
        (memory_group / "cgroup.procs").write_text(str(worker))
        error = client.infer({"x": np.array(1, np.int32)})["error"]
        assert HINT in error
        assert HINT in server.log
        until = time.monotonic() + 120
        while not isinstance(answer := client.infer(good), list):
            assert time.monotonic() < until, (answer, server.log)
            time.sleep(0.1)
