"""A distributed servable under test: its folder, the server's start-up script and those of its launchers, each a
process of its own, and every process that belongs to it, found by a mark in its environment."""

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from export_rank_models import WIDTH
from servers import ServerProcess, free_port, kill_until_gone

MARK = "MSSERVING_TEST_MARK"

CONFIG = """
import numpy as np
from mindspore_serving.server import distributed, register

model = distributed.declare_servable({declared})


@register.register_method(output_names=["y"])
def predict(x):
    return register.add_stage(model, x, outputs_count=1)
"""

SUBGRAPH = """

def run_{0}(x):
    return model.call(x, subgraph={0})


@register.register_method(output_names=["y"])
def predict_{0}(x):
    return register.add_stage(run_{0}, x, outputs_count=1)
"""

SERVER = """
import os
from mindspore_serving import server
from mindspore_serving.client import SSLConfig as ClientConfig
from mindspore_serving.server import SSLConfig, distributed

folder = os.path.dirname(os.path.abspath(__file__))
distributed.start_servable(folder, "ranks", "rank_table.json", {arguments})
server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"])
server.start_restful_server(os.environ["SERVING_REST_ADDRESS"])
"""

AGENTS = """
from mindspore_serving.client import SSLConfig
from mindspore_serving.server import distributed

distributed.startup_agents({arguments})
print("startup_agents has returned", flush=True)
"""


class Code(str):
    """An argument of a script that is written as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def arguments_of(arguments: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def process_environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(condition: Callable[[], Any], seconds: float, what: str = "") -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what() if callable(what) else what}"
        time.sleep(0.1)
    return value


class RankServable:
    """Servable "ranks" in `folder`, with the method predict, and predict_N for each further sub-graph. Its processes
    have the folder's "tmp" for temporary files.

    Args:
        folder: A folder of the test's own.
        rank_ips: The address of each rank's machine, in order.
        declared: Further arguments of declare_servable; rank_size is given.
        start: Further arguments of start_servable.
        subgraphs: How many.
        host: The address that the distributed worker listens on.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rank_ips: Sequence[str] = ("127.0.0.1", "127.0.0.1"),
        declared: Mapping[str, object] = {},
        start: Mapping[str, object] = {},
        subgraphs: int = 1,
        host: str = "127.0.0.1",
    ) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.ranks_address = f"{host}:{free_port()}"
        self.launchers: list[ServerProcess] = []
        (folder / "ranks").mkdir(parents=True)
        self._env = {MARK: self.mark, "TMPDIR": str(folder / "tmp")}
        (folder / "tmp").mkdir()
        declared = {"rank_size": len(rank_ips), "stage_size": 1, **declared}
        config = CONFIG.format(declared=arguments_of(declared)) + "".join(
            SUBGRAPH.format(i) for i in range(1, subgraphs)
        )
        (folder / "ranks" / "servable_config.py").write_text(config)
        servers: dict[str, list[dict[str, str]]] = {}
        for rank, ip in enumerate(rank_ips):
            devices = servers.setdefault(ip, [])
            devices.append({"device_id": str(len(devices)), "rank_id": str(rank)})
        table = {"server_list": [{"server_id": ip, "device": devices} for ip, devices in servers.items()]}
        (folder / "rank_table.json").write_text(json.dumps(table))
        script = folder / "serving_server.py"
        start = {"distributed_address": self.ranks_address, **start}
        script.write_text(SERVER.format(arguments=arguments_of(start)))
        self.server = ServerProcess(script, env=self._env)

    def start_server(self, **kwargs: Any) -> ServerProcess:
        """Starts the script again from the beginning; does not wait, since it waits for the ranks."""
        if kwargs:
            addresses = self.server.grpc_address, self.server.rest_address
            self.server = ServerProcess(self.server.script, env=self._env, addresses=addresses, **kwargs)
        return self.server.start()

    def start_launcher(
        self, model_files: Sequence[object], name: str = "agents", prefix: Sequence[str] = (), **arguments: object
    ) -> ServerProcess:
        """Starts a launcher in a folder of its own; does not wait."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        script = folder / f"{name}.py"
        given = {
            "distributed_address": self.ranks_address,
            "model_files": [
                [str(file) for file in files] if isinstance(files, (list, tuple)) else str(files)
                for files in model_files
            ],
            **arguments,
        }
        script.write_text(AGENTS.format(arguments=arguments_of(given)))
        launcher = ServerProcess(script, env=self._env, listens=(), prefix=prefix)
        self.launchers.append(launcher)
        return launcher.start()

    def wait_ready(self, timeout: float = 240) -> "RankServable":
        try:
            self.server.wait_ready(timeout)
        except (TimeoutError, RuntimeError) as error:
            raise RuntimeError(f"{error}\n{self.logs()}") from None
        return self

    # ---- its processes

    def pids(self) -> list[int]:
        """Everything of it that lives."""
        mark = f"{MARK}={self.mark}".encode()
        found = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
        return [pid for pid in found if mark in process_environment(pid) and is_alive(pid)]

    def agents(self) -> dict[int, int]:
        """The process of each rank."""
        found: dict[int, int] = {}
        for pid in self.pids():
            if "mindspore_serving.worker.agent" not in command_of(pid):
                continue
            for entry in process_environment(pid).split(b"\0"):
                if entry.startswith(b"MS_NODE_ID="):
                    found[int(entry[11:])] = pid
        return found

    def scheduler(self) -> int:
        (pid,) = (pid for pid in self.pids() if b"MS_ROLE=MS_SCHED\0" in process_environment(pid) + b"\0")
        return pid

    def worker(self) -> int:
        workers = [pid for pid in self.pids() if command_of(pid).find("mindspore_serving.worker ") >= 0]
        return workers[0] if workers else 0

    def logs(self) -> str:
        parts = [f"--- server\n{self.server.log}{self.server.worker_logs()}"]
        parts += [f"--- {launcher.script.stem}\n{launcher.log}{launcher.worker_logs()}" for launcher in self.launchers]
        return "\n".join(parts)

    def stop(self) -> None:
        """An orderly stop: the server is told, everything else follows; nothing is left behind."""
        assert self.server.stop(timeout=60) == 0, self.logs()
        for launcher in self.launchers:
            assert launcher.wait_exit(60) == 0, self.logs()
        wait_until(lambda: not self.pids(), 30, lambda: "\n".join(command_of(pid) for pid in self.pids()))
        assert not list(self.folder.glob("**/temp_rank_table"))
        assert not list((self.folder / "tmp").iterdir())

    def kill(self) -> None:
        kill_until_gone(self.pids, 20)
        for process in [self.server, *self.launchers]:
            process.kill()

    def __enter__(self) -> "RankServable":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
