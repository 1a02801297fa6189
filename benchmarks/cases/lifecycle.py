"""Start-up time against MindSpore's own, and the idle server's memory."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness.case import FigureCase
from harness.targets import resident_mb
from servers import ServerProcess

# What MindSpore itself needs to be imported, to load the model and to compile it, in a process of its own.
BARE_LOAD = """
import sys
import mindspore as ms
from mindspore import nn
import numpy as np
ms.set_device("CPU")
ms.set_context(mode=ms.GRAPH_MODE)
cell = nn.GraphCell(ms.load(sys.argv[1]))
x = ms.Tensor(np.zeros((2, 2), np.float32))
cell.compile(x, x)
"""


def _start_up(work: Path, env: dict[str, str]) -> Callable[[], float]:
    def measure() -> float:
        server = ServerProcess(Path(__file__).parents[1] / "server.py", cwd=work, env={**env, "BENCH_SERVABLES": "add"})
        started = time.monotonic()
        with server:
            return time.monotonic() - started

    return measure


def _idle_memory(work: Path, env: dict[str, str]) -> Callable[[], float]:
    def measure() -> float:
        script = Path(__file__).parents[1] / "server.py"
        with ServerProcess(script, cwd=work, env={**env, "BENCH_SERVABLES": "add"}) as server:
            return resident_mb(server.pid)

    return measure


def _bare_load(model: Path) -> Callable[[], float]:
    def measure() -> float:
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", BARE_LOAD, str(model)], check=True, capture_output=True, timeout=120)
        return time.monotonic() - started

    return measure


def cases(work: Path, env: dict[str, str]) -> list[FigureCase]:
    model = Path(env["BENCH_SERVABLE_DIRECTORY"]) / "add" / "1" / "add.mindir"
    return [
        FigureCase("bare-load", "MindSpore's own import, load, compile", "s", _bare_load(model)),
        FigureCase("start-up", "start of the script to ready", "s", _start_up(work, env), against="bare-load",
                   goal="≤ +0.30 s"),
        FigureCase("memory", "memory of the server process, idle after its start", "MB", _idle_memory(work, env),
                   goal="≤ 40 MB"),
    ]  # fmt: skip
