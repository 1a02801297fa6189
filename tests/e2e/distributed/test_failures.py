"""Processes of a distributed servable that die or stand still, under a load of checked requests: each request is
answered, none wrongly, and the servable comes back by itself. With --long, twenty times each."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from rank_load import RankLoad
from rank_servable import RankServable, is_alive, wait_until

Parts = Callable[..., list[Path]]
Make = Callable[..., RankServable]

# From a death to the answer of what was in flight: rank_timeout_seconds, and time for a loaded machine.
RANK_TIMEOUT = 5
ANSWERED_SECONDS = RANK_TIMEOUT + 25
BACK_SECONDS = 240


def start(make_servable: Make, parts: Parts) -> RankServable:
    servable = make_servable(start={"rank_timeout_seconds": RANK_TIMEOUT})
    servable.start_server()
    servable.start_launcher(parts("rows2"))
    return servable.wait_ready()


def test_KillEachProcessInTurn_UnderLoad(make_servable: Make, parts: Parts, long_run: bool):
    servable = start(make_servable, parts)
    started = {"launcher": 0}

    def kill_launcher(load: RankLoad) -> None:
        (launcher,) = servable.launchers
        old = [*servable.agents().values(), servable.scheduler()]
        os.kill(launcher.pid, signal.SIGKILL)
        launcher.wait_exit()
        wait_until(lambda: not any(is_alive(pid) for pid in old), 30, "agents outlive their launcher")
        servable.launchers.clear()
        started["launcher"] += 1
        servable.start_launcher(parts("rows2"), name=f"agents{started['launcher']}")  # as an init system would

    targets: dict[str, Callable[[RankLoad], None]] = {
        "agent 0": lambda load: os.kill(servable.agents()[0], signal.SIGKILL),
        "agent 1": lambda load: os.kill(servable.agents()[1], signal.SIGKILL),
        "worker": lambda load: os.kill(servable.worker(), signal.SIGKILL),
        "scheduler": lambda load: os.kill(servable.scheduler(), signal.SIGKILL),
        "launcher": kill_launcher,
    }
    with RankLoad(servable.server.grpc_address) as load:
        for _ in range(20 if long_run else 1):
            for name, kill in targets.items():
                load.wait_for_answer(time.monotonic(), 60, servable.logs)
                generation = {servable.worker(), *servable.agents().values()}
                struck = time.monotonic()
                kill(load)
                # Every process of that life goes; what is answered afterwards is of the next one.
                wait_until(lambda old=generation: not old & set(servable.pids()), 60, lambda n=name: f"old after {n}")
                assert load.waiting() < ANSWERED_SECONDS
                load.wait_for_answer(time.monotonic(), BACK_SECONDS, servable.logs)
                print(f"{name}: back after {time.monotonic() - struck:.1f} s")
                load.check()
        assert load.longest < ANSWERED_SECONDS, load.longest
    print(load.errors.most_common(10))
    assert load.errors, "nothing was in flight"
    load.check()
    servable.stop()


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
    # Rank 0 stands in the collective as long as rank 1 does.
    assert any("ranks 0, 1 did not answer within 5000 ms" in error for error in load.errors), load.errors
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
