"""Runs a Python script as the ranks of a MindSpore cluster on this machine: a scheduler and one process a rank."""

import os
import subprocess
import sys
import time
from pathlib import Path

from servers import free_port

SCHEDULER = """
import mindspore
mindspore.set_context(mode=mindspore.GRAPH_MODE)
mindspore.set_device("CPU")
from mindspore.communication import init
init()
"""


def run_ranks(script: Path, rank_size: int, *arguments: str, timeout: float = 300) -> list[str]:
    """What each rank printed. A rank that fails ends all; the error has what it printed."""
    environment = {
        **os.environ,
        "MS_WORKER_NUM": str(rank_size),
        "MS_SCHED_HOST": "127.0.0.1",
        "MS_SCHED_PORT": str(free_port()),
        "GLOG_v": "3",
        "PYTHONUNBUFFERED": "1",
    }
    logs = [script.parent / f"rank_{rank}.log" for rank in range(rank_size)]
    scheduler_log = script.parent / "scheduler.log"
    processes = [_start([sys.executable, "-c", SCHEDULER], {**environment, "MS_ROLE": "MS_SCHED"}, scheduler_log)]
    try:
        for rank, log in enumerate(logs):
            own = {**environment, "MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(rank)}
            processes.append(_start([sys.executable, str(script), *arguments], own, log))
        end = time.monotonic() + timeout
        while any(process.poll() is None for process in processes[1:]):
            failed = next((i for i, process in enumerate(processes[1:]) if process.poll() not in (None, 0)), None)
            if failed is not None or time.monotonic() > end:
                break
            time.sleep(0.1)
        for rank, process in enumerate(processes[1:]):
            if process.poll() != 0:
                text = "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')}" for log in [*logs, scheduler_log])
                raise RuntimeError(f"rank {rank} ended with {process.returncode}\n{text}")
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
    return [log.read_text(errors="replace") for log in logs]


def _start(command: list[str], environment: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as out:
        return subprocess.Popen(
            command, cwd=log.parent, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
