"""Whether a model's layers are fused with what follows them: proved and measured, once, when it is loaded.

The session library can give a convolution, with the bias, the batch normalization, the sum and the ReLU behind it, to
oneDNN as one step in oneDNN's own memory layout; and so a dense layer, with its bias and its activation. For a batch
size that is done where it computes what MindSpore's executor computes, and where it is faster. Winograd's method, which
the library takes for convolutions that are faster by it, rounds otherwise: it is left out where only without it the
same is computed.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mindspore_serving.worker.session_library import Session, SessionLibrary

logger = logging.getLogger("mindspore_serving.worker")

# Fused steps must save at least this share of a run.
WORTH_IT = 0.97
# Operators of a model file that may become fused steps.
FUSABLE_OPERATORS = frozenset({"Conv2D", "MatMul", "Dense"})
# Trials of each kind for a batch size, and when to stop. A batch size of which one run takes longer is not timed: it
# gets what the next smaller one got. Runs that are over sooner than a trial should last are repeated in it.
TRIAL_RUNS = 20
SPLIT_TRIAL_RUNS = 40  # MindSpore's kernels try out how to split their work in their first 30
TRIAL_S = 200e-6
MOST_REPEATS = 64
TRIAL_BUDGET_S = 0.5
LONGEST_RUN_S = 0.5

FUSED = "fused"
WINOGRAD = "Winograd"


def choose_fusion(
    model_file: str,
    library: SessionLibrary,
    options: Mapping[str, str],
    sizes: Sequence[int],
    rows: Callable[[int], list[np.ndarray]],
    problem_of: Callable[[int, list[np.ndarray]], str],
    kernel_threads: int = 1,
) -> dict[str, str]:
    """The options with which a session of this model should fuse its layers; none if it should not.

    Args:
        model_file: The model, for the log.
        library: The session library.
        options: What the session is opened with, without `fuse` and `kernel_threads`.
        sizes: The batch sizes; [0] for a model without a batch.
        rows: The inputs of a run for a batch size.
        problem_of: What is wrong with the outputs of a run for a batch size; '' if nothing is.
        kernel_threads: How many threads a step may split its work among, with and without.
    """
    options = {**options, "kernel_threads": str(kernel_threads)}
    try:
        for method in ({}, {"winograd": "never"}):
            with library.open({**options, **method, "fuse": "all"}) as fused:
                if FUSED not in fused.way.partition("(")[0]:
                    logger.info("%s: %s", model_file, fused.way)
                    return {}
                size, problem = _first_problem(fused, sizes, rows, problem_of)
                if not problem:
                    with library.open(options) as plain:
                        faster = _faster_sizes(model_file, plain, fused, sorted(sizes), rows, kernel_threads)
                    return {**method, "fuse": ";".join(map(str, faster))} if faster else {}
                winograd = WINOGRAD in fused.way
                logger.warning(
                    "%s: %s, because the result for batch size %d would be another: %s",
                    model_file,
                    "Winograd's method is not used" if winograd else "layers are not fused",
                    size,
                    problem,
                )
                if not winograd:
                    break
    except RuntimeError as error:
        logger.warning("%s: layers are not fused: %s", model_file, error)
    return {}


def _first_problem(
    session: Session,
    sizes: Sequence[int],
    rows: Callable[[int], list[np.ndarray]],
    problem_of: Callable[[int, list[np.ndarray]], str],
) -> tuple[int, str]:
    for size in sizes:
        problem = problem_of(size, session.run(rows(size)))
        if problem:
            return size, problem
    return 0, ""


def _faster_sizes(
    model_file: str,
    plain: Session,
    fused: Session,
    sizes: Sequence[int],
    rows: Callable[[int], list[np.ndarray]],
    kernel_threads: int,
) -> list[int]:
    chosen: list[int] = []
    faster = False
    for size in sizes:
        inputs = rows(size)
        times = _best_runs((plain, fused), inputs, kernel_threads)
        if times is not None:
            faster = times[1] < WORTH_IT * times[0]
            logger.info(
                "%s: batch size %d, kernel threads %d: a run takes %.4f ms, with fused layers %.4f ms",
                model_file,
                size,
                kernel_threads,
                times[0] * 1e3,
                times[1] * 1e3,
            )
        if faster:
            chosen.append(size)
    return chosen


def _best_runs(sessions: Sequence[Session], inputs: Sequence[np.ndarray], kernel_threads: int) -> list[float] | None:
    """The time of the fastest run in each session, in turns; None if a run takes too long to try."""
    # Of one thread the processor time tells more on a busy machine; of several it would be a part.
    clock, runs = (time.thread_time, TRIAL_RUNS) if kernel_threads == 1 else (time.perf_counter, SPLIT_TRIAL_RUNS)
    best = [float("inf")] * len(sessions)
    repeats = 1
    end = clock() + TRIAL_BUDGET_S
    for attempt in range(runs):
        for index, session in enumerate(sessions):
            begin = clock()
            session.repeat(inputs, repeats)
            best[index] = min(best[index], (clock() - begin) / repeats)
            if best[index] > LONGEST_RUN_S:
                return None
        if attempt > 0 and clock() >= end:
            break
        repeats = min(MOST_REPEATS, max(1, int(TRIAL_S / max(*best, 1e-9))))
    return best
