"""The processes of one life of a distributed servable on one machine, and the thread that watches them."""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from mindspore_serving.server.distributed._agent_order import REGISTERED, WORKER_GONE
from mindspore_serving.server.distributed._agent_process import AgentProcess, ProcessPlan

_KILL_AGAIN_SECONDS = 0.2


class AgentGroup:
    """Starts processes, writes their logs, and tells of what happens to them.

    Args:
        plans: What to start.
        key: The key of encrypted models: the user's own object, handed to each agent through its socket.
        on_registered: Called when all agents have been taken by the distributed worker.
        on_death: Called when a process ends that nobody has told to, with its rank and what is to be said of it. An
            agent that has left because the distributed worker is gone is not told of.

    Both are called by the watching thread, and not after `end` has been called.

    Raises:
        RuntimeError: A process cannot be started. None is left.
        OSError: The group itself cannot be, say for too many open files. None is left.
    """

    def __init__(
        self,
        plans: Sequence[ProcessPlan],
        key: bytes | None,
        on_registered: Callable[[], None],
        on_death: Callable[[int, str], None],
    ) -> None:
        self._on_registered = on_registered
        self._on_death = on_death
        self._ending = threading.Event()
        self._kill_at = 0.0  # set before _ending
        self._selector = selectors.DefaultSelector()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._alive: list[AgentProcess] = []
        try:
            self._selector.register(self._wake, selectors.EVENT_READ, self._woken)
            for plan in plans:
                self._add(AgentProcess(plan, key))
            self._thread = threading.Thread(target=self._watch, name="serving-agents", daemon=True)
            self._thread.start()
        except BaseException:
            self.end(0)
            self._watch()
            os.close(self._wake)
            raise

    @property
    def pids(self) -> list[int]:
        """The processes that run."""
        return [process.pid for process in self._alive]

    def last_lines(self, rank: int) -> str:
        """The end of the log of a rank's agent; "" if there is no such agent any more. Any thread."""
        for process in list(self._alive):
            if process.plan.agent and process.plan.rank == rank:
                return process.last_lines()
        return ""

    def end(self, grace_seconds: float) -> None:
        """Let the processes end: they have so long to leave by themselves. Any thread; `join` waits for it."""
        self._kill_at = time.monotonic() + grace_seconds
        self._ending.set()
        os.eventfd_write(self._wake, 1)

    def join(self) -> None:
        """Wait until no process is left, after `end`. Once."""
        self._thread.join()
        os.close(self._wake)

    def _add(self, process: AgentProcess) -> None:
        self._alive.append(process)
        try:
            self._selector.register(process.pidfd, selectors.EVENT_READ, partial(self._ended, process))
            self._selector.register(process.log_fd, selectors.EVENT_READ, partial(self._printed, process))
            self._selector.register(process.link, selectors.EVENT_READ, partial(self._said, process))
        except OSError:
            process.kill()
            self._remove(process)
            raise

    def _watch(self) -> None:
        while self._alive or not self._ending.is_set():
            for key, _ in self._selector.select(self._turn_seconds()):
                if key.fd in self._selector.get_map():  # not gone with its process in this turn
                    key.data()
            if self._ending.is_set() and (time.monotonic() >= self._kill_at or self._only_the_scheduler()):
                for process in self._alive:
                    process.kill()
        self._selector.close()

    def _turn_seconds(self) -> float | None:
        if not self._ending.is_set():
            return None
        return max(self._kill_at - time.monotonic(), _KILL_AGAIN_SECONDS)

    def _only_the_scheduler(self) -> bool:
        """The agents have gone; the scheduler would wait for them."""
        return not any(process.plan.agent for process in self._alive)

    def _woken(self) -> None:
        os.eventfd_read(self._wake)

    def _printed(self, process: AgentProcess) -> None:
        if not process.read_log():
            self._selector.unregister(process.log_fd)

    def _said(self, process: AgentProcess) -> None:
        said = process.read_link()
        if not said:
            self._selector.unregister(process.link)
        elif REGISTERED.strip().encode() in said:
            process.registered = True
            if all(one.registered for one in self._alive) and not self._ending.is_set():
                self._on_registered()

    def _ended(self, process: AgentProcess) -> None:
        self._remove(process)
        if process.exit_code != WORKER_GONE and not self._ending.is_set():
            self._on_death(process.plan.rank, process.describe_end())

    def _remove(self, process: AgentProcess) -> None:
        """Take a process that has ended, or will at once, out of the group."""
        for file in (process.pidfd, process.log_fd, process.link):
            if file in self._selector.get_map():
                self._selector.unregister(file)
        process.reap()
        self._alive.remove(process)
