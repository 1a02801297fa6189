"""How many threads MindSpore's CPU kernels may split their work among: measured, once, when a model is loaded.

Left alone, MindSpore lets every kernel find out by itself in its first runs, from a handful of wall-clock times. On a
busy machine a kernel of a few elements may settle on two threads and pay ten times its own cost for ever. There is one
pool a process, so what is chosen here holds for every model of the worker.
"""

import os
import time
from collections.abc import Mapping, Sequence

import numpy as np

from mindspore_serving.worker.rank_group import SingleRank
from mindspore_serving.worker.session_library import Session, SessionLibrary

# A run shorter than this is over before a second thread would have woken up.
TINY_RUN_S = 300e-6
# Several threads must save at least this share of a run to be worth their processor time.
WORTH_IT = 0.9
# Kernels try out how to split their work in their first 30 runs; a model that runs long gets fewer.
TRIAL_RUNS = 40
TRIAL_BUDGET_S = 0.25

_largest_choice = 1


def one_thread_is_possible() -> bool:
    """False once an earlier model of this process has several: choose_kernel_threads() will not give fewer."""
    return _largest_choice == 1


def choose_kernel_threads(
    library: SessionLibrary,
    options: Mapping[str, str],
    inputs: Sequence[np.ndarray],
    available: int | None = None,
    *,
    group: SingleRank | None = None,
) -> int:
    """The number of threads to open a session of this model with.

    Args:
        library: The session library.
        options: What the session is opened with, without `kernel_threads`.
        inputs: One run's inputs.
        available: Processors to use at most; None: those that this process may run on.
        group: The ranks that run the model together; they measure together, and the slowest decides.

    Returns:
        1 if splitting the work does not pay, otherwise the number of processors; never less than what an earlier
        model of this process was given, since the pool is one.

    Raises:
        RuntimeError: A run failed, for the reason told.
    """
    global _largest_choice
    group = group or SingleRank()
    processors = len(os.sched_getaffinity(0)) if available is None else available
    if group.any(processors > _largest_choice):
        with library.open({**options, "kernel_threads": "1"}) as session:
            alone = group.largest(_best_run(session, inputs, 3, group))
        if alone >= TINY_RUN_S:
            with library.open({**options, "kernel_threads": str(processors)}) as session:
                together = group.largest(_best_run(session, inputs, TRIAL_RUNS, group))
            if together < WORTH_IT * alone:
                _largest_choice = processors
    return _largest_choice


def _best_run(session: Session, inputs: Sequence[np.ndarray], runs: int, group: SingleRank) -> float:
    session.run(inputs)
    best = float("inf")
    end = time.perf_counter() + TRIAL_BUDGET_S
    for _ in range(runs):
        begin = time.perf_counter()
        session.repeat(inputs, 1)
        now = time.perf_counter()
        best = min(best, now - begin)
        if group.any(now >= end):
            break
    return best
