"""What is done to the server's processes. Each returns when the server is whole again, and says in the ledger which
errors clients may have seen meanwhile; docs/operations.md has the same table for people."""

import os
import resource
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import grpc
import numpy as np

from chaos.clients import PATH, PATIENCE
from chaos.ledger import ANYTHING, CONNECTION_LOST, NOT_CONNECTED, Ledger, Window
from chaos.requests import Answer, Request, decode, encode
from chaos.world import SERVABLES, WORKERS, World, wait_for

LOST = "worker_unavailable"
NO_WORKER = "servable_unavailable"


def lost_at(servable: str) -> tuple[str, ...]:
    """What clients may see after one of a servable's workers has ended."""
    return (LOST,) if WORKERS[servable] > 1 else (LOST, NO_WORKER)


class Faults:
    """One thread. `random` decides who is hit."""

    def __init__(self, world: World, ledger: Ledger, random: np.random.Generator) -> None:
        self._world = world
        self._ledger = ledger
        self._random = random

    def quick(self) -> list[Callable[[], None]]:
        """Those that end a worker at most."""
        return [
            self.kill_worker,
            self.crash_worker,
            self.kill_all_workers,
            self.freeze_worker,
            self.exit_in_user_code,
            self.crash_in_user_code,
            self.hang_in_user_code,
            self.no_memory_in_user_code,
            self.no_memory_in_worker,
        ]

    def slow(self) -> list[Callable[[], None]]:
        """Those that start the whole server again."""
        return [self.start_anew, self.kill_server]

    # -------------------------------------------------------------------------------------- signals from outside
    def kill_worker(self) -> None:
        self._signal_worker(signal.SIGKILL)

    def crash_worker(self) -> None:
        self._signal_worker(signal.SIGSEGV)

    def _signal_worker(self, number: signal.Signals) -> None:
        servable, pid = self._victim()
        with self._ledger.window(f"{number.name} for worker {pid} of {servable}", servable, *lost_at(servable)):
            os.kill(pid, number)
            self._back(pid)

    def kill_all_workers(self) -> None:
        servable = str(self._random.choice(SERVABLES))
        pids = self._world.workers(servable)
        with self._ledger.window(f"SIGKILL for all workers of {servable}, {pids}", servable, LOST, NO_WORKER):
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            self._back(*pids)

    def freeze_worker(self) -> None:
        """A worker that does not run delays its requests. A server that gives it up may also say so."""
        servable, pid = self._victim()
        seconds = float(self._random.uniform(0.3, 4))
        with (
            self._ledger.window(
                f"worker {pid} of {servable} stopped for {seconds:.1f} s", servable, *lost_at(servable)
            ),
            self._full_queue(),
        ):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                pass
            self._world.wait_whole()

    # -------------------------------------------------------------------------------------- user code
    def exit_in_user_code(self) -> None:
        self._ordered_death("exit")

    def crash_in_user_code(self) -> None:
        self._ordered_death("segv")

    def _ordered_death(self, order: str) -> None:
        """The request is given to another worker, and ends that as well."""
        with self._ledger.window(f"user code: {order}", "python", LOST, NO_WORKER):
            before = self._world.workers("python")
            answer = self._order(order)
            assert answer.kind == LOST, f"a request that ended its worker was answered {answer}"
            wait_for(lambda: set(before) - set(self._world.workers("python")), 20, "the worker is gone")
            self._world.wait_whole()

    def hang_in_user_code(self) -> None:
        """Somebody notices, and kills the worker, as often as the request finds another one to hang in."""
        seconds = float(self._random.uniform(0.5, 2))
        note = self._world.server.cwd / "hanging"
        note.unlink(missing_ok=True)
        with (
            self._ledger.window(f"user code hangs, killed after {seconds:.1f} s", "python", LOST, NO_WORKER),
            self._full_queue(),
        ):
            answers: list[Answer] = []
            caller = threading.Thread(target=lambda: answers.append(self._order("hang")))
            caller.start()
            while caller.is_alive():
                wait_for(lambda: (note.exists() and note.read_text()) or not caller.is_alive(), 30, "user code hangs")
                if not note.exists():
                    break
                pid = int(note.read_text())
                note.unlink()
                time.sleep(seconds)
                assert not answers, f"a request that hangs was answered {answers}"
                os.kill(pid, signal.SIGKILL)
                caller.join(1)
            caller.join(PATIENCE)
            assert answers and answers[0].kind == LOST, f"after the kill: {answers}"
            self._world.wait_whole()

    def no_memory_in_user_code(self) -> None:
        with self._ledger.window("user code runs out of memory", "python", "stage_failed", "internal", LOST):
            answer = self._order("memory")
            assert answer.kind in ("stage_failed", "internal", LOST), answer
            assert answer.kind == LOST or "MemoryError" in answer.text, answer
            self._world.wait_whole()

    def no_memory_in_worker(self) -> None:
        """No allocation from the system succeeds for a while, whoever in the worker asks for it."""
        servable, pid = self._victim()
        seconds = float(self._random.uniform(0.2, 1))
        kinds = ("stage_failed", "internal", *lost_at(servable))
        with self._ledger.window(f"no memory for worker {pid} of {servable}", servable, *kinds):
            try:
                soft, hard = resource.prlimit(pid, resource.RLIMIT_AS)
                resource.prlimit(pid, resource.RLIMIT_AS, (1 << 20, hard))
                time.sleep(seconds)
                resource.prlimit(pid, resource.RLIMIT_AS, (soft, hard))
            except ProcessLookupError:
                self._ledger.note(f"worker {pid} has not survived it")
            self._world.wait_whole()

    def _order(self, order: str) -> Answer:
        # Other numbers each time: inputs on which workers have died before are refused.
        one = {"order": np.asarray(order), "x": self._random.random(3, np.float32)}
        request = encode(Request("python", "ordered", [one], []))
        deadline = time.monotonic() + PATIENCE
        with grpc.insecure_channel(
            self._world.server.grpc_address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            while True:
                try:
                    return decode(channel.unary_unary(PATH)(request, timeout=PATIENCE))
                except grpc.RpcError as error:  # refused while a burst fills the queue: not taken, so it may come again
                    if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED or time.monotonic() > deadline:
                        raise
                time.sleep(0.2)

    # -------------------------------------------------------------------------------------- the whole server
    def start_anew(self) -> None:
        """A stop is graceful: what was taken is answered. HTTP/1.1 alone cannot tell a client that it was not."""
        with (
            self._ledger.window("the script stops the server and starts it again", ANYTHING, NOT_CONNECTED),
            self._ledger.window("… HTTP/1.1", ANYTHING, CONNECTION_LOST, clients="rest"),
        ):
            self._world.start_anew()
            self._world.wait_whole()

    def kill_server(self) -> None:
        with self._ledger.window("SIGKILL for the server", ANYTHING, NOT_CONNECTED, CONNECTION_LOST):
            session = self._world.server.pid
            self._world.server.send_signal(signal.SIGKILL)
            self._world.server.wait_exit()
            took = wait_for(lambda: not self._world.server.pids(), 30, "the workers of a killed server end")
            self._ledger.note(f"the workers of server {session} were gone {took:.2f} s later")
            self._world.server.start().wait_ready()
            self._world.wait_whole()

    # -------------------------------------------------------------------------------------- helpers
    def _full_queue(self) -> AbstractContextManager[Window]:
        """What floods have sent to a worker that does not go on, and reset, counts until the worker is back."""
        return self._ledger.window("… resets wait with it", ANYTHING, "overloaded")

    def _victim(self) -> tuple[str, int]:
        servable = str(self._random.choice(SERVABLES))
        return servable, int(self._random.choice(self._world.workers(servable)))

    def _back(self, *pids: int) -> None:
        wait_for(lambda: not set(pids) & set(self._world.server.worker_pids()), 20, f"{pids} are gone")
        took = self._world.wait_whole()
        self._ledger.note(f"whole again {took:.2f} s after the death was seen")
