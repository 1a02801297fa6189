"""Servers for tests and demonstrations: a start-up script in a process session of its own, with its log and its end.

Standard library alone, so that any interpreter can use it.
"""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


_given_ports: set[int] = set()


def free_port() -> int:
    """A port that nobody listens on, another one at each call; below those that outgoing connections get."""
    while True:
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given_ports:
            _given_ports.add(port)
            return port


def session_pids(session: int) -> list[int]:
    """The living processes of a session (zombies left out): a server and every process it started."""
    pids = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # ended meanwhile
        if int(fields[3]) == session and fields[0] not in "ZX":
            pids.append(int(entry.name))
    return pids


def kill_until_gone(pids: Callable[[], Iterable[int]], timeout: float) -> None:
    """Kills what `pids` names, and what has come since, until it names nothing or the time is over."""
    deadline = time.monotonic() + timeout
    while (living := list(pids())) and time.monotonic() < deadline:
        for pid in living:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)


def copy_example(name: str, target: Path) -> Path:
    """A copy of an example without anything a run left behind, in target/name."""
    leftovers = shutil.ignore_patterns(
        "*.mindir", "*.npy", "*.npz", "__pycache__", "serving_logs", "rank_*", "kernel_meta", "temp_rank_table"
    )
    return Path(shutil.copytree(EXAMPLES / name, target / name, ignore=leftovers))


def run_script(
    script: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    python: str = sys.executable,
    timeout: float = 300,
) -> str:
    """Runs a Python script in its folder to its end and returns what it printed; a failure raises with that text."""
    done = subprocess.run(
        [python, str(script), *arguments],
        cwd=script.parent,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        timeout=timeout,
    )
    if done.returncode:
        raise RuntimeError(f"{script.name} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


class ServerProcess:
    """One start-up script, run on free ports of 127.0.0.1 that it reads from SERVING_GRPC_ADDRESS and _REST_ADDRESS.

    Use it as a context manager: at the end, however it comes, no process of the session is left.
    """

    def __init__(
        self,
        script: Path,
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
        prefix: Sequence[str] = (),
        addresses: tuple[str, str] | None = None,
        listens: Sequence[str] = ("gRPC", "RESTful"),
        arguments: Sequence[str] = (),
    ) -> None:
        self.script = script
        self.cwd = cwd or script.parent
        free = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.grpc_address, self.rest_address = addresses or free
        self.log_path = self.cwd / f"{script.stem}.log"
        self._addresses = {"gRPC": self.grpc_address, "RESTful": self.rest_address}
        self._listens = listens
        self._command = [*prefix, python, str(script), *arguments]
        self._env = {**os.environ, **(env or {}), **self.client_env}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def client_env(self) -> dict[str, str]:
        return {"SERVING_GRPC_ADDRESS": self.grpc_address, "SERVING_REST_ADDRESS": self.rest_address}

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def pids(self) -> list[int]:
        return session_pids(self.pid)

    def worker_pids(self) -> list[int]:
        return [pid for pid in self.pids() if pid != self.pid]

    def start(self) -> "ServerProcess":
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self.cwd,
                env={**self._env, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def wait_ready(self, timeout: float = 120) -> "ServerProcess":
        """Until the script has said that everything it starts listens; raises with its log if it ends before."""
        started = "Serving {} server start success, listening on {}"
        awaited = [started.format(kind, self._addresses[kind]) for kind in self._listens]
        deadline = time.monotonic() + timeout
        while not all(line in self.log for line in awaited):
            if self._process is not None and self._process.poll() is not None:
                raise RuntimeError(f"{self.script.name} ended with {self._process.returncode}:\n{self.log}")
            if time.monotonic() > deadline:
                logs = self.log + self.worker_logs()
                raise TimeoutError(f"{self.script.name} is not ready after {timeout} s:\n{logs}")
            time.sleep(0.02)
        return self

    def wait_exit(self, timeout: float = 30) -> int:
        assert self._process is not None, "not started"
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.script.name} still runs after {timeout} s:\n{self.log}") from None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def stop(self, number: int = signal.SIGINT, timeout: float = 20) -> int:
        """Asks the server to stop as a user would; returns its exit code."""
        self.send_signal(number)
        return self.wait_exit(timeout)

    def worker_logs(self) -> str:
        return "".join(
            f"--- {path.name}\n{path.read_text(errors='replace')}"
            for path in sorted(self.cwd.glob("serving_logs/*"))
            if path.is_file()
        )

    def kill(self) -> None:
        """Ends every process of the session; nothing to do after a clean stop."""
        if self._process is None:
            return
        kill_until_gone(self.pids, 10)
        self._process.wait(10)

    def __enter__(self) -> "ServerProcess":
        try:
            return self.start().wait_ready()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            if self._process is not None and self._process.poll() is None:
                self.stop()
        except TimeoutError as error:
            print(error)
        finally:
            self.kill()
