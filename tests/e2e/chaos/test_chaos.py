"""Checked load while everything that can be killed is killed: every request is answered, and none of them wrongly.

Set MSSERVING_CHAOS_SEED to repeat a run's choices (not its timing).
"""

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from chaos.clients import Traffic
from chaos.faults import Faults
from chaos.floods import Floods
from chaos.ledger import ANYTHING, CONNECTION_LOST, NOT_CONNECTED, RIGHT, UNANSWERED, WRONG, Ledger
from chaos.world import World, make_world, wait_for
from servers import ServerProcess

SHORT_SECONDS, LONG_SECONDS = 25, 600
CLIENTS = {"grpcio": 2, "window": 1, "rest": 2, "raw": 2}


@pytest.fixture
def seed(long_run: bool) -> int:
    text = os.environ.get("MSSERVING_CHAOS_SEED")
    return int(text) if text else random.SystemRandom().randrange(1_000_000) if long_run else 7


@pytest.fixture
def world(tmp_path: Path, models: Path) -> Iterator[World]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    folder = tmp_path / "served"
    folder.mkdir()
    env = {"TMPDIR": str(temporary), "GLOG_v": "1"}
    with ServerProcess(make_world(folder, models), env=env) as server:
        yield World(server)


def flood_until(stop: threading.Event, floods: Floods, choices: np.random.Generator) -> None:
    while not stop.is_set():
        for number in choices.permutation(len(floods.all())):
            floods.run(floods.all()[number])
            if stop.wait(float(choices.uniform(0.1, 1))):
                return


def run_faults(faults: Faults, choices: np.random.Generator, seconds: float) -> None:
    """Every fault in some order, again and again, until the time is over. What starts the whole server again takes
    long and comes once in a round, at its end."""
    deadline = time.monotonic() + seconds
    while True:
        quick, slow = faults.quick(), faults.slow()
        for number in choices.permutation(len(quick)):
            if time.monotonic() > deadline:
                break
            quick[number]()
            time.sleep(float(choices.uniform(0.2, 1)))
        slow[choices.integers(len(slow))]()
        if time.monotonic() > deadline:
            return


def check(ledger: Ledger) -> None:
    assert ledger.counts[WRONG] == 0, ledger.report()
    assert ledger.counts[UNANSWERED] == 0, ledger.report()
    assert not ledger.unexplained(), ledger.report()


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_NothingIsLostWrongOrLeft(world, long_run, seed, tmp_path):
    seconds = LONG_SECONDS if long_run else SHORT_SECONDS
    print(f"chaos for {seconds} s, seed {seed} (MSSERVING_CHAOS_SEED={seed})")
    shared_memory, sources = set(os.listdir("/dev/shm")), files_in(tmp_path)
    ledger = Ledger()
    server = world.server
    descriptors = world.descriptors()
    try:
        torment(world, ledger, seed, seconds)
        check(ledger)
        assert ledger.counts[RIGHT] > 10 * seconds, ledger.report()
        # Everything that came is gone again, but for what the restarted workers took over.
        wait_for(
            lambda: world.descriptors() <= descriptors, 30, f"{world.descriptors()} descriptors, not {descriptors}"
        )
        stop_under_load(world, ledger, seed)
        check(ledger)
    except BaseException:  # what is needed to understand it
        print(ledger.report(), server.log[-6000:], sep="\n--- log\n")
        raise
    print(ledger.summary())
    assert server.pids() == []
    assert set(os.listdir("/dev/shm")) <= shared_memory
    left = {name for name in files_in(tmp_path) - sources if "__pycache__" not in name}
    assert all(name.startswith("served/serving_logs/log_") for name in left), left


def torment(world: World, ledger: Ledger, seed: int, seconds: float) -> None:
    traffic = Traffic(world.server.grpc_address, world.server.rest_address, ledger, seed)
    floods = Floods(world.server.grpc_address, world.server.rest_address, ledger, np.random.default_rng([seed, 1001]))
    choices = np.random.default_rng([seed, 1002])
    faults = Faults(world, ledger, np.random.default_rng([seed, 1003]))
    stop = threading.Event()
    flooding = threading.Thread(target=flood_until, args=(stop, floods, np.random.default_rng([seed, 1004])))
    traffic.start(CLIENTS)
    flooding.start()
    try:
        run_faults(faults, choices, seconds)
    finally:
        stop.set()
        flooding.join(120)
        traffic.join()
    assert not flooding.is_alive(), ledger.report()


def stop_under_load(world: World, ledger: Ledger, seed: int) -> None:
    traffic = Traffic(world.server.grpc_address, world.server.rest_address, ledger, seed + 1, pause=0)
    traffic.start(CLIENTS)
    time.sleep(1.5)
    try:
        with (
            ledger.window("SIGTERM under load", ANYTHING, NOT_CONNECTED) as stopping,
            ledger.window("… HTTP/1.1", ANYTHING, CONNECTION_LOST, clients="rest") as stopping_http1,
        ):
            code = world.server.stop(15)
    finally:
        traffic.join()
    stopping.end = stopping_http1.end = float("inf")
    assert code == 0, f"exit code {code}\n{ledger.report()}"
