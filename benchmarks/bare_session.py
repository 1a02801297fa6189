"""Runs one model back to back through its session, in one thread, and prints the runs a second: a line for each ROWS.

No server, no queue, no copy: the loop is native (loop/bare_loop.cc).
"""

import argparse
import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mindspore_serving.worker.loaded_model import LoadedModel
from mindspore_serving.worker.mindspore_model import load_model
from mindspore_serving.worker.session_library import NUMPY_DTYPES, Session, SessionLibrary, aligned_empty

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 1.0
# Options of a session that are about our own kernels: MindSpore's executor knows nothing of them.
OF_REPLAY_ALONE = ("fuse", "winograd")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a MindIR file")
    parser.add_argument(
        "rows", type=int, nargs="+", help="of a run: 1 or the model's batch; 0: the model has no batch dimension"
    )
    parser.add_argument(
        "--executor",
        action="store_true",
        help="run it by MindSpore's own executor (called from C++), not in the way that a worker would choose",
    )
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "release", help="where the loop was built")
    return parser.parse_args()


def native_loop(build: Path) -> Callable[..., int]:
    path = build / "benchmarks" / "libbare_loop.so"
    if not path.is_file():
        raise SystemExit(f"{path} is not built: run it through ./dev bench")
    loop = ctypes.CDLL(str(path)).bare_loop
    loop.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64]
    loop.restype = ctypes.c_uint64
    return loop


def runs_a_second(session: Session, inputs: list[np.ndarray], loop: Callable[..., int]) -> float:
    runs = 16
    while True:
        started = time.perf_counter()
        session.repeat(inputs, runs, loop)
        if (seconds := time.perf_counter() - started) >= SECONDS:
            return runs / seconds
        runs = int(runs * SECONDS / seconds * 1.05) if seconds > SECONDS / 20 else runs * 4


def inputs_of(model: LoadedModel, rows: int) -> list[np.ndarray]:
    arrays = []
    for info in model.inputs:
        dims = info.dims or ()
        arrays.append(aligned_empty((rows, *dims[1:]) if rows else dims, NUMPY_DTYPES[info.dtype]))
        arrays[-1].fill(1)
    return arrays


def main() -> None:
    arguments = parse_arguments()
    loop = native_loop(arguments.build)
    model = load_model(str(arguments.model), with_batch_dim=arguments.rows[0] > 0, device_type="CPU")
    if model.session_library is None:
        raise SystemExit("the model has no session library to run it")
    options = dict(model.session_options)
    if arguments.executor:
        options = {name: value for name, value in options.items() if name not in OF_REPLAY_ALONE} | {"way": "run"}
    with SessionLibrary(model.session_library).open(options) as session:
        print(session.way, model.batch_sizes)
        for rows in arguments.rows:
            print(runs_a_second(session, inputs_of(model, rows), loop))


if __name__ == "__main__":
    main()
