"""The server that is tormented: three servables, and a script that can start itself anew."""

import re
import textwrap
import time
from pathlib import Path

import psutil

from servables import add_config, make_servable
from servers import ServerProcess, session_pids

# Plain Python, so that its workers are back within a second or two. What `order` says is done to the worker.
PYTHON_CONFIG = """
import ctypes
import os
import resource
import time
from mindspore_serving.server import register


def obey(order, x):
    if order == "exit":
        os._exit(3)
    elif order == "segv":
        ctypes.string_at(8)
    elif order == "hang":
        with open("hanging", "w") as file:
            file.write(str(os.getpid()))
        time.sleep(3600)
    elif order == "memory":
        limits = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (64 << 20), limits[1]))
        try:
            hoard = [bytearray(8 << 20) for _ in range(1000)]
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
        raise AssertionError(f"the limit let {len(hoard)} pieces through")
    return x


def twice(x):
    return x * 2


def total(pairs):
    for x, y in pairs:
        yield float(x.sum()), y.sum()


@register.register_method(output_names=["y"])
def double(x):
    return register.add_stage(twice, x, outputs_count=1)


@register.register_method(output_names=["y", "total", "doubled_total"])
def double_and_total(x):
    y = register.add_stage(twice, x, outputs_count=1)
    t, d = register.add_stage(total, x, y, outputs_count=2, batch_size=8)
    return y, t, d


@register.register_method(output_names=["y"])
def ordered(order, x):
    return register.add_stage(obey, order, x, outputs_count=1)
"""

SCRIPT = """
import os
import pathlib
import time
from mindspore_serving import server
from mindspore_serving.server.master import context

folder = pathlib.Path(__file__).resolve().parent
order = folder / "start_anew"


def start():
    context.set_max_enqueued_requests({max_requests})
    server.start_servables(
        [
            server.ServableStartConfig(str(folder), name, device_ids=list(range(count)))
            for name, count in {workers}.items()
        ]
    )
    server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"], max_msg_mb_size=8)
    server.start_restful_server(os.environ["SERVING_REST_ADDRESS"], max_msg_mb_size=8)


start()
while True:
    time.sleep(0.05)
    if order.exists():
        server.stop()
        start()
        order.unlink()
"""

SERVABLES = ("plain", "batched", "python")
WORKERS = {"plain": 2, "batched": 1, "python": 2}
MAX_REQUESTS = 400  # low enough that a burst of a test's own can reach it


def make_world(folder: Path, models: Path) -> Path:
    """Writes servables and script; returns the script."""
    make_servable(folder, "plain", add_config("add", checked=True), {1: models / "add.mindir"})
    make_servable(folder, "batched", add_config("addb", with_batch_dim=True, checked=True), {1: models / "addb.mindir"})
    make_servable(folder, "python", PYTHON_CONFIG, {})
    script = folder / "start.py"
    script.write_text(textwrap.dedent(SCRIPT).lstrip().format(max_requests=MAX_REQUESTS, workers=WORKERS))
    return script


class World:
    """A running server and what is known about its processes."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.order = server.cwd / "start_anew"

    def workers(self, servable: str) -> list[int]:
        """The living worker processes of a servable, by what the server's log says of their starts."""
        started = re.findall(rf'event=worker_started worker="{servable} .*pid=(\d+)', self.server.log)
        return [pid for pid in self.server.worker_pids() if str(pid) in started]

    def whole(self) -> bool:
        """Every worker runs and has said that it is ready."""
        log = self.server.log
        for servable, count in WORKERS.items():
            pids = self.workers(servable)
            if len(pids) != count or not all(
                re.search(rf"event=worker_ready .*\bpid={pid}$", log, re.M) for pid in pids
            ):
                return False
        return True

    def wait_whole(self, timeout: float = 120) -> float:
        return wait_for(self.whole, timeout, "every worker runs again")

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.server.pid}/fd").iterdir()))

    def start_anew(self, timeout: float = 120) -> None:
        """The script stops everything and starts it again in the same process."""
        self.order.touch()
        wait_for(lambda: not self.order.exists() or not self.alive(), timeout, "the script has started anew")
        if not self.alive():
            raise AssertionError(f"the script ended:\n{self.server.log[-4000:]}")

    def alive(self) -> bool:
        return self.server.pid in session_pids(self.server.pid)

    def rss_mb(self) -> float:
        return float(psutil.Process(self.server.pid).memory_info().rss) / 1e6


def wait_for(condition, timeout: float, what: str) -> float:
    """Seconds until the condition held; fails after `timeout`."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > timeout:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - started
