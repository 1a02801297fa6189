"""Processes of a distributed servable that die or stand still, under a load of checked requests: each request is
answered, none wrongly, and the servable comes back by itself. With --long, twenty times each."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from rank_load import RankLoad
from rank_servable import RankServable, command_of, is_alive, wait_until
from servers import ServerProcess
from traces import Traces, descriptors, threads, zombies_of

Parts = Callable[..., list[Path]]
Make = Callable[..., RankServable]

# From a death to the answer of what was in flight: rank_timeout_seconds, and time for a loaded machine.
RANK_TIMEOUT = 5
ANSWERED_SECONDS = RANK_TIMEOUT + 25
BACK_SECONDS = 240
IPS = ("127.0.0.1", "127.0.0.2")


def start(make_servable: Make, parts: Parts) -> RankServable:
    servable = make_servable(start={"rank_timeout_seconds": RANK_TIMEOUT})
    servable.start_server()
    servable.start_launcher(parts("rows2"))
    return servable.wait_ready()


class TwoMachines:
    """One machine plays two: rank 0 with MindSpore's scheduler, and rank 1, each with a launcher of its own."""

    def __init__(self, make_servable: Make, parts: Parts) -> None:
        self.files = parts("rows2")
        self.servable = make_servable(rank_ips=IPS, start={"rank_timeout_seconds": RANK_TIMEOUT})
        self.servable.start_server()
        self.launchers = [self.start_launcher(rank) for rank in range(len(IPS))]
        self.servable.wait_ready()

    def start_launcher(self, rank: int, life: int = 0) -> ServerProcess:
        return self.servable.start_launcher(
            [self.files[rank]], name=f"agents{rank}_{life}", agent_ip=IPS[rank], rank_start=rank
        )

    def processes(self) -> dict[str, int]:
        servable = self.servable
        return {
            **{f"agent {rank}": pid for rank, pid in servable.agents().items()},
            "worker": servable.worker(),
            "scheduler": servable.scheduler(),
            **{f"launcher {rank}": launcher.pid for rank, launcher in enumerate(self.launchers)},
        }

    def stays(self) -> list[int]:
        """The processes that no other one's death ends."""
        return [self.servable.server.pid, *(launcher.pid for launcher in self.launchers)]

    def kill(self, name: str, life: int) -> None:
        pid = self.processes()[name]
        os.kill(pid, signal.SIGKILL)
        if not name.startswith("launcher"):
            return
        rank = int(name.split()[1])
        self.launchers[rank].wait_exit()
        self.servable.launchers.remove(self.launchers[rank])
        self.launchers[rank] = self.start_launcher(rank, life)  # as an init system would


class Holdings:
    """What the processes that stay have: as many descriptors and threads in every life, and no zombies."""

    def __init__(self) -> None:
        self._first: dict[int, tuple[int, int]] = {}

    def check(self, pids: Iterable[int]) -> None:
        for pid in pids:
            first = self._first.setdefault(pid, (descriptors(pid), threads(pid)))
            wait_until(
                lambda p=pid, f=first: descriptors(p) <= f[0] and threads(p) <= f[1] and not zombies_of(p),
                30,
                lambda p=pid, f=first: (
                    f"{command_of(p)} has {descriptors(p)} descriptors, {threads(p)} threads, at first {f}; "
                    f"zombies {zombies_of(p)}"
                ),
            )


def test_KillEachProcessInTurn_UnderLoad(make_servable: Make, parts: Parts, long_run: bool):
    machines = TwoMachines(make_servable, parts)
    servable = machines.servable
    holdings, traces = Holdings(), Traces(own=(servable.folder, machines.files[0].parent))
    with RankLoad(servable.server.grpc_address, pause=0.005 if long_run else 0.0) as load:
        load.wait_for_answer(time.monotonic(), 60, servable.logs)
        holdings.check(machines.stays())
        for turn in range(20 if long_run else 1):
            for name in machines.processes():
                load.wait_for_answer(time.monotonic(), 60, servable.logs)
                stays = machines.stays()
                old = set(servable.pids()) - set(stays)
                traces.look_at([*old, *stays])
                struck = time.monotonic()
                machines.kill(name, turn)
                # Every process of that life goes; what is answered afterwards is of the next one.
                wait_until(lambda o=old: not any(is_alive(pid) for pid in o), 60, lambda n=name: f"old after {n}")
                gone = time.monotonic()
                wait_until(lambda: not traces.left(servable.pids()), 30, lambda: str(traces.left(servable.pids())))
                assert load.waiting() < ANSWERED_SECONDS
                load.wait_for_answer(time.monotonic(), BACK_SECONDS, servable.logs)
                back = time.monotonic()
                print(f"{turn + 1}, {name}: gone in {gone - struck:.1f} s, back in {back - struck:.1f} s", flush=True)
                load.check()
                holdings.check(machines.stays())
        assert load.longest < ANSWERED_SECONDS, load.longest
    print(f"{load.answered} answers, the longest request {load.longest:.1f} s", load.errors.most_common(10))
    assert load.errors, "nothing was in flight"
    load.check()
    servable.stop()
    assert traces.left() == []


def test_AnAgentThatStandsStill_IsReplaced(make_servable: Make, parts: Parts):
    servable = start(make_servable, parts)
    with RankLoad(servable.server.grpc_address) as load:
        load.wait_for_answer(time.monotonic(), 60, servable.logs)
        stopped = servable.agents()[1]
        os.kill(stopped, signal.SIGSTOP)
        wait_until(lambda: not is_alive(stopped), 60, "the stopped agent is still there")
        assert load.waiting() < ANSWERED_SECONDS
        load.wait_for_answer(time.monotonic(), BACK_SECONDS, servable.logs)
        assert load.longest < ANSWERED_SECONDS
    load.check()
    # Rank 0 stands in the collective as long as rank 1 does. That, or rank 1's silence, is noticed first.
    reasons = ("ranks 0, 1 did not answer within 5000 ms", "rank 1 on 127.0.0.1 is gone: nothing was heard for 5000 ms")
    assert any(reason in error for error in load.errors for reason in reasons), load.errors
    servable.stop()


def test_AServerThatIsKilled_IsFollowedByTheNextOne(make_servable: Make, parts: Parts):
    """The launchers stay and give their ranks to the next server."""
    servable = start(make_servable, parts)
    (launcher,) = servable.launchers
    old = [servable.worker(), *servable.agents().values(), servable.scheduler()]
    os.kill(servable.server.pid, signal.SIGKILL)
    servable.server.wait_exit()
    wait_until(lambda: not any(is_alive(pid) for pid in old), 60, "processes outlive the server")
    assert is_alive(launcher.pid)
    servable.start_server()
    servable.wait_ready()
    with RankLoad(servable.server.grpc_address) as load:
        load.wait_for_answer(time.monotonic(), 60, servable.logs)
    assert not load.errors
    load.check()
    servable.stop()
