"""A server under test with everything it starts: pinned, found again, measured and ended.

Its processes are known by a mark in their environment, so that daemons which leave the session are found, too.
"""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness.targets import SERVER_CORE

_MARK = "RIVALS_RUN"
_STOP_SECONDS = 5.0
_SETTLE_SECONDS, _SETTLE_STEP = 3.0, 0.06


def marked(mark: str) -> list[int]:
    """Living processes that carry the mark."""
    wanted = f"{_MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # ended meanwhile, or not ours
        if wanted in environment.split(b"\0") and alive(int(entry.name)):
            found.append(int(entry.name))
    return sorted(found)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def memory_mb(pids: Sequence[int]) -> float:
    """Memory of these processes, in MB; pages that several share are divided among them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total * 1024 / 1e6


def _cpu_ticks(pids: Sequence[int]) -> int:
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total


def settle(pids: Sequence[int]) -> None:
    """Waits until these processes are mostly idle: what the last load left behind is no part of the next one."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    before = _cpu_ticks(pids)
    while time.monotonic() < deadline:
        time.sleep(_SETTLE_STEP)
        now = _cpu_ticks(pids)
        if now - before <= _SETTLE_STEP * os.sysconf("SC_CLK_TCK") / 2:
            return
        before = now


def repin(pids: Sequence[int]) -> int:
    """Puts every thread that left the server's core back on it, and says how many there were."""
    strayed = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    if os.sched_getaffinity(int(task)) != {SERVER_CORE}:
                        os.sched_setaffinity(int(task), {SERVER_CORE})
                        strayed += 1
    return strayed


class MarkedServer:
    """Runs a command on the server's core with its log in a file. Use it as a context manager."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path, *, ends_slowly: bool = False
    ) -> None:
        self._command = ["taskset", "-c", str(SERVER_CORE), *command]
        self._mark = uuid.uuid4().hex
        self._env = {**os.environ, **env, _MARK: self._mark}
        self._cwd = cwd
        self._log = log
        self._ends_slowly = ends_slowly
        self._process: subprocess.Popen[bytes] | None = None
        self.answered = False  # the caller's note

    def __enter__(self) -> "MarkedServer":
        self._cwd.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._cwd, env=self._env, stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        """The first process is asked to end, then whatever it left behind, then nobody is asked. What takes long to
        end is not asked at all."""
        assert self._process is not None
        if self._process.poll() is None and not self._ends_slowly:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
        for number in (signal.SIGKILL,) if self._ends_slowly else (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            self._wait_gone()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)

    def _wait_gone(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _STOP_SECONDS
        while self.pids() and time.monotonic() < deadline:
            self._process.poll()  # reaps it
            time.sleep(0.05)

    def pids(self) -> list[int]:
        return marked(self._mark)

    @property
    def exit_code(self) -> int | None:
        assert self._process is not None
        return self._process.poll()

    def log_end(self, lines: int = 12) -> str:
        if not self._log.exists():
            return ""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])


@contextlib.contextmanager
def core_of_load() -> Iterator[None]:
    """The harness itself stays off the server's core."""
    before = os.sched_getaffinity(0)
    others = before - {SERVER_CORE}
    if others:
        os.sched_setaffinity(0, others)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
