"""One process that a launcher has started: an agent, or MindSpore's scheduler."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mindspore_serving._core import LogFile

_TAIL_LINES = 10
_TAIL_BYTES = 4096
_SEND_SECONDS = 10.0
_READ_BYTES = 65536


@dataclass(frozen=True)
class ProcessPlan:
    """What is to be started.

    Attributes:
        title: What messages call it, such as "the agent of rank 3".
        rank: The rank that is told of with its death.
        order: What it is told, up to the key.
        agent: False: the scheduler, which never says that it has registered.
    """

    title: str
    rank: int
    command: Sequence[str]
    environment: dict[str, str]
    order: bytes
    log: LogFile
    agent: bool = True


class AgentProcess:
    """A running process with its log pipe and the socket that holds it: it is killed when that is closed.

    Used by the thread that made it, and then by its watcher alone, but for `last_lines`.

    Raises:
        RuntimeError: It cannot be started. Nothing is left of it.
    """

    def __init__(self, plan: ProcessPlan, key: bytes | None) -> None:
        self.plan = plan
        self.registered = not plan.agent
        self.exit_code: int | None = None
        self._tail: deque[bytes] = deque(maxlen=_TAIL_LINES)
        self._rest = b""
        self._log_lock = threading.Lock()  # guards the log, its pipe and its last lines
        try:
            self._start()
        except OSError as error:
            raise RuntimeError(f"The process of {plan.title} cannot be started: {error}") from error
        self._send_order(key)

    def _start(self) -> None:
        with contextlib.ExitStack() as undo:
            self.link, theirs = socket.socketpair()
            undo.callback(self.link.close)
            with theirs:
                self.log_fd, log_end = os.pipe()
                undo.callback(os.close, self.log_fd)
                try:
                    # Its own session: Ctrl+C in a terminal reaches the launcher, which ends its agents.
                    self._process = subprocess.Popen(
                        [*self.plan.command, str(theirs.fileno())],
                        env=self.plan.environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log_end,
                        stderr=log_end,
                        pass_fds=(theirs.fileno(),),
                        start_new_session=True,
                    )
                finally:
                    os.close(log_end)
            undo.callback(self._process.wait)
            undo.callback(self.kill)
            self.pidfd = os.pidfd_open(self._process.pid)
            os.set_blocking(self.log_fd, False)
            undo.pop_all()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def _send_order(self, key: bytes | None) -> None:
        self.link.settimeout(_SEND_SECONDS)
        with contextlib.suppress(OSError):  # one that has died already is noticed by its watcher
            self.link.sendall(self.plan.order)
            if key is not None:
                self.link.sendall(key)
        self.link.setblocking(False)

    def read_log(self) -> bool:
        """Put what the process has printed into its log. False: there will be no more."""
        with self._log_lock:
            return self._read_log()

    def last_lines(self) -> str:
        """The end of its log, with all that it has printed up to now. Any thread."""
        with self._log_lock:
            if self.log_fd >= 0:
                self._read_log()
            lines = [*self._tail, self._rest] if self._rest.strip() else list(self._tail)
        return b"\n".join(lines)[-_TAIL_BYTES:].decode(errors="replace")

    def _read_log(self) -> bool:
        while True:
            try:
                text = os.read(self.log_fd, _READ_BYTES)
            except BlockingIOError:
                return True
            if not text:
                return False
            self.plan.log.write(text)
            *lines, self._rest = (self._rest + text).split(b"\n")
            self._rest = self._rest[-_TAIL_BYTES:]
            self._tail.extend(line[-_TAIL_BYTES:] for line in lines if line.strip())

    def read_link(self) -> bytes:
        """What the process says to the launcher; b"": it never will again."""
        try:
            return self.link.recv(256)
        except BlockingIOError:
            return b" "
        except OSError:
            return b""

    def kill(self) -> None:
        """End it at once, with what it has started."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def reap(self) -> None:
        """After its end: take its exit code and close everything."""
        self.exit_code = self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # what it has left behind
        with self._log_lock:
            self._read_log()
            self.plan.log.end_line()
            os.close(self.log_fd)
            self.log_fd = -1
        self.link.close()
        os.close(self.pidfd)

    def describe_end(self) -> str:
        """How it ended, with the last lines of its log."""
        code = self.exit_code or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        text = f"{self.plan.title} {how}"
        tail = self.last_lines()
        return f"{text}; the last lines of its log:\n{tail}" if tail else text
