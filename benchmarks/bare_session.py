"""Runs one model back to back through its session, in one thread, and prints the runs a second: a line for each ROWS.

usage: bare_session.py MODEL.mindir ROWS... (of a run: 1 or the model's batch; 0: without batch dimension)

The loop is Python's, some hundred nanoseconds a run; no server, no queue, no copy.
"""

import sys
import time

import numpy as np

from mindspore_serving.worker.mindspore_model import load_model
from mindspore_serving.worker.session_library import NUMPY_DTYPES, Session, SessionLibrary, aligned_empty

SECONDS = 1.0


def timed(session: Session, inputs: list[np.ndarray], runs: int) -> float:
    started = time.perf_counter()
    session.repeat(inputs, runs)
    return time.perf_counter() - started


def runs_a_second(session: Session, inputs: list[np.ndarray]) -> float:
    runs = 16
    while (seconds := timed(session, inputs, runs)) < SECONDS:
        runs = int(runs * SECONDS / seconds * 1.05) if seconds > SECONDS / 20 else runs * 4
    return runs / seconds


def main() -> None:
    wanted = [int(rows) for rows in sys.argv[2:]]
    model = load_model(sys.argv[1], with_batch_dim=wanted[0] > 0, device_type="CPU")
    print(model.way, model.batch_sizes)
    if model.session_library is None:
        raise SystemExit("the model has no session library to run it")
    with SessionLibrary(model.session_library).open(model.session_options) as session:
        for rows in wanted:
            inputs = []
            for info in model.inputs:
                dims = info.dims or ()
                array = aligned_empty((rows, *dims[1:]) if rows else dims, NUMPY_DTYPES[info.dtype])
                array.fill(1)
                inputs.append(array)
            print(runs_a_second(session, inputs))


if __name__ == "__main__":
    main()
