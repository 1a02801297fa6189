"""What is loaded: a serving server or an echo program, pinned to the server core, with its processor time."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from servers import ServerProcess, free_port

SERVER_CORE = 0
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes since each began, in seconds."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS


def run_seconds(pids: Iterable[int]) -> float:
    """The same to the nanosecond, of the threads that there are now: for differences between two short runs."""
    nanoseconds = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def resident_mb(pid: int) -> float:
    """Memory that a process holds, in MB; pages shared with others count in full."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"no VmRSS of {pid}")


def check_pinned(pids: Iterable[int]) -> None:
    """Every thread, too: a library that widens its own affinity would make the figures worthless."""
    for pid in pids:
        for task in os.listdir(f"/proc/{pid}/task"):
            if os.sched_getaffinity(int(task)) != {SERVER_CORE}:
                raise RuntimeError(f"thread {task} of {pid} left core {SERVER_CORE}")


class ServingTarget:
    """A start-up script with its workers."""

    def __init__(self, script: Path, work: Path, env: dict[str, str]) -> None:
        self._server = ServerProcess(script, cwd=work, env=env, prefix=["taskset", "-c", str(SERVER_CORE)])

    def __enter__(self) -> "ServingTarget":
        self._server.__enter__()
        self._pids = self._server.pids()
        check_pinned(self._pids)
        return self

    def __exit__(self, *error: object) -> None:
        self._server.__exit__(*error)

    @property
    def grpc_address(self) -> str:
        return self._server.grpc_address

    @property
    def rest_address(self) -> str:
        return self._server.rest_address

    @property
    def pid(self) -> int:
        """The server process; its workers are other processes."""
        return self._server.pid

    def cpu_seconds(self) -> float:
        return cpu_seconds(self._pids)

    def run_seconds(self) -> float:
        return run_seconds(self._pids)


class EchoTarget:
    """A benchmark program that answers every request with its own body, on one port."""

    def __init__(self, command: list[str]) -> None:
        self._port = free_port()
        self.grpc_address = self.rest_address = f"127.0.0.1:{self._port}"
        self._command = [word.format(port=self._port) for word in command]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "EchoTarget":
        self._process = subprocess.Popen(
            ["taskset", "-c", str(SERVER_CORE), *self._command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self._command} ended with {self._process.returncode}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=1):
                return self
            time.sleep(0.02)
        raise TimeoutError(f"{self._command} does not listen on {self._port}")

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def cpu_seconds(self) -> float:
        assert self._process is not None
        return cpu_seconds([self._process.pid])
