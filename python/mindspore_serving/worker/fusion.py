"""Whether a model's convolutions are fused with what follows them: proved and measured, once, when it is loaded.

The session library can give a convolution, with the bias, the batch normalization, the sum and the ReLU behind it, to
oneDNN as one step in oneDNN's own memory layout. For a batch size that is done where it computes what MindSpore's
executor computes, and where it is faster. Winograd's method, which the library takes where it is faster, rounds
otherwise: it is left out where only without it the same is computed.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mindspore_serving.worker.session_library import Session, SessionLibrary

logger = logging.getLogger("mindspore_serving.worker")

# Fused steps must save at least this share of a run.
WORTH_IT = 0.97
# Runs of each kind for a batch size, and when to stop. A batch size of which one run takes longer is not timed: it gets
# what the next smaller one got.
TRIAL_RUNS = 20
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
) -> dict[str, str]:
    """The options with which a session of this model should fuse its convolutions; none if it should not.

    Args:
        model_file: The model, for the log.
        library: The session library.
        options: What the session is opened with, without `fuse`. `kernel_threads` is taken to be 1.
        sizes: The batch sizes; [0] for a model without a batch.
        rows: The inputs of a run for a batch size.
        problem_of: What is wrong with the outputs of a run for a batch size; '' if nothing is.
    """
    alone = {**options, "kernel_threads": "1"}
    try:
        for method in ({}, {"winograd": "never"}):
            with library.open({**alone, **method, "fuse": "all"}) as fused:
                if FUSED not in fused.way.partition("(")[0]:
                    logger.info("%s: %s", model_file, fused.way)
                    return {}
                size, problem = _first_problem(fused, sizes, rows, problem_of)
                if not problem:
                    with library.open(alone) as plain:
                        faster = _faster_sizes(model_file, plain, fused, sorted(sizes), rows)
                    return {**method, "fuse": ";".join(map(str, faster))} if faster else {}
                winograd = WINOGRAD in fused.way
                logger.warning(
                    "%s: convolutions are not %s, because the result for batch size %d would be another: %s",
                    model_file,
                    "computed by Winograd's method" if winograd else "fused",
                    size,
                    problem,
                )
                if not winograd:
                    break
    except RuntimeError as error:
        logger.warning("%s: convolutions are not fused: %s", model_file, error)
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
    model_file: str, plain: Session, fused: Session, sizes: Sequence[int], rows: Callable[[int], list[np.ndarray]]
) -> list[int]:
    chosen: list[int] = []
    faster = False
    for size in sizes:
        inputs = rows(size)
        times = _best_runs((plain, fused), inputs)
        if times is not None:
            faster = times[1] < WORTH_IT * times[0]
            logger.info(
                "%s: batch size %d: a run takes %.3f ms, with fused convolutions %.3f ms",
                model_file,
                size,
                times[0] * 1e3,
                times[1] * 1e3,
            )
        if faster:
            chosen.append(size)
    return chosen


def _best_runs(sessions: Sequence[Session], inputs: Sequence[np.ndarray]) -> list[float] | None:
    """The processor time of the fastest run in each session, in turns; None if a run takes too long to try."""
    best = [float("inf")] * len(sessions)
    end = time.thread_time() + TRIAL_BUDGET_S
    for attempt in range(TRIAL_RUNS):
        for index, session in enumerate(sessions):
            begin = time.thread_time()
            session.repeat(inputs, 1)
            best[index] = min(best[index], time.thread_time() - begin)
            if best[index] > LONGEST_RUN_S:
                return None
        if attempt > 0 and time.thread_time() >= end:
            break
    return best
