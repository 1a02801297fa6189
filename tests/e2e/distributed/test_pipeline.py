"""enable_pipeline_infer with ranks of MindSpore: runs overlap, answers are those of their own inputs, and a rank that
dies with several runs out fails them all."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export_rank_models import SQUARE
from mindspore_serving.client import Client
from rank_load import RankLoad
from rank_servable import RankServable, rows, wait_until

Parts = Callable[..., list[Path]]
Make = Callable[..., RankServable]

RANK_TIMEOUT = 5
ANSWERED_SECONDS = RANK_TIMEOUT + 25
BACK_SECONDS = 240


def staged(values: np.ndarray) -> np.ndarray:
    """The second stage adds the inputs of its run to what the first one sends: a mix of two runs is a wrong answer."""
    return values @ SQUARE + values


def start(
    make_servable: Make, parts: Parts, last: str = "staged2", subgraphs: int = 1, timeout: float = RANK_TIMEOUT
) -> RankServable:
    servable = make_servable(
        declared={"stage_size": 2, "enable_pipeline_infer": True},
        start={"rank_timeout_seconds": timeout},
        subgraphs=subgraphs,
    )
    servable.start_server()
    files = [*parts("staged2", (0,)), *parts(last, (1,))]
    servable.start_launcher([[file] * subgraphs for file in files])
    return servable.wait_ready()


def ask(servable: RankServable, values: np.ndarray, method: str = "predict") -> np.ndarray:
    replies = Client(servable.server.grpc_address, "ranks", method).infer([{"x": row} for row in values])
    assert isinstance(replies, list) and all("error" not in reply for reply in replies), replies
    return np.array([reply["y"] for reply in replies])


def times_asleep(pid: int) -> int:
    """How often the main thread of a rank has gone to sleep: it does between runs, and at no other time."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])
    raise AssertionError(f"no count of sleeps of process {pid}")


def test_TheFirstRankBeginsTheNextRun_WhileTheLastIsAtTheFirst(make_servable: Make, parts: Parts):
    servable = start(make_servable, parts, last="slow2", timeout=60)
    assert re.search(r"is run by 2 ranks, .*, stages overlap", servable.logs()), servable.logs()
    first_rank = servable.agents()[0]
    answers: dict[int, np.ndarray] = {}

    def send(seed: int) -> threading.Thread:
        thread = threading.Thread(target=lambda: answers.update({seed: ask(servable, rows(2, seed))}))
        thread.start()
        return thread

    def overlaps(seed: int) -> bool:
        """Rank 0 has done its part of the second run, and the first one still goes on a while later."""
        before = times_asleep(first_rank)
        threads = [send(seed)]
        wait_until(lambda: times_asleep(first_rank) > before, 60, "rank 0 has not run the first run")
        between = times_asleep(first_rank)
        threads.append(send(seed + 1))
        wait_until(lambda: times_asleep(first_rank) > between, 60, "rank 0 has not run the second run")
        time.sleep(0.1)
        seen = not answers
        for thread in threads:
            thread.join(120)
        for number in (seed, seed + 1):
            np.testing.assert_allclose(answers.pop(number), staged(rows(2, number)), rtol=1e-4, atol=1e-4)
        return seen

    # On a loaded machine the second request may come too late.
    assert any(overlaps(seed) for seed in range(0, 40, 2)), servable.logs()
    servable.stop()


def test_ConcurrentLoad_OnSubGraphsAndNestedCalls(make_servable: Make, parts: Parts):
    servable = start(make_servable, parts, subgraphs=2)
    failures: list[str] = []

    def load(method: str, first: int) -> None:
        for seed in range(first, first + 60):
            values = rows(1 + seed % 5, seed)
            try:
                np.testing.assert_allclose(ask(servable, values, method), staged(values), rtol=1e-4, atol=1e-4)
            except AssertionError as error:
                failures.append(f"{method} {seed}: {error}")

    threads = [
        threading.Thread(target=load, args=(("predict", "predict_1")[number % 2], 1000 * number)) for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
        assert not thread.is_alive()
    assert not failures, failures[:3]
    servable.stop()


@pytest.mark.parametrize("rank", [0, 1])
def test_KillARank_WithSeveralRunsOut(rank: int, make_servable: Make, parts: Parts, long_run: bool):
    servable = start(make_servable, parts)
    with RankLoad(servable.server.grpc_address, threads=40, expected=staged) as load:
        for _ in range(10 if long_run else 2):
            load.wait_for_answer(time.monotonic(), 60, servable.logs)
            old = {servable.worker(), *servable.agents().values()}
            os.kill(servable.agents()[rank], signal.SIGKILL)
            wait_until(lambda old=old: not old & set(servable.pids()), 60, "processes of the old group are left")
            assert load.waiting() < ANSWERED_SECONDS
            load.wait_for_answer(time.monotonic(), BACK_SECONDS, servable.logs)
            load.check()
        assert load.longest < ANSWERED_SECONDS, load.longest
    load.check()
    assert any(f"rank {rank} on" in error and "killed by signal 9" in error for error in load.errors), load.errors
    servable.stop()


def test_OneStage_SaysWhyTheOptionHasNoEffect(make_servable: Make, parts: Parts):
    servable = make_servable(declared={"enable_pipeline_infer": True})
    servable.start_server()
    servable.start_launcher(parts("rows2"))
    servable.wait_ready()
    log = servable.logs()
    assert log.count("enable_pipeline_infer of servable 'ranks' has no effect: its model has one stage") == 1, log
    servable.stop()
