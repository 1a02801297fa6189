"""Run as one rank (tests/support/ranks.py): its part of a distributed model in a loop, in step with the other ranks by
the collective alone. Prints the median of a run in microseconds as its last line; no server, no connection.

usage: bare_ranks.py FOLDER NAME RUNS
"""

import os
import sys
import time

import numpy as np

from mindspore_serving.worker import _mindspore
from mindspore_serving.worker.mindspore_model import load_model
from mindspore_serving.worker.rank_group import RankGroup, wait_for_scheduler
from mindspore_serving.worker.session_library import SessionLibrary


def main() -> None:
    folder, name, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    _mindspore.import_mindspore()
    _mindspore.set_device("CPU", 0)
    from mindspore.communication import init

    wait_for_scheduler(os.environ["MS_SCHED_HOST"], int(os.environ["MS_SCHED_PORT"]), 120)
    init()
    group = RankGroup()
    path = os.path.join(folder, f"{name}_{group.rank}.mindir")
    model = load_model(path, with_batch_dim=True, device_type="CPU", device_id=0, kernel_threads=1, group=group)
    assert model.session_library is not None
    inputs = [np.ones((1, *(info.dims or ())[1:]), np.float32) for info in model.inputs]
    with SessionLibrary(model.session_library).open(model.session_options) as session:
        session.repeat(inputs, 100)
        times = []
        for _ in range(runs):
            begun = time.perf_counter()
            session.repeat(inputs, 1)
            times.append(time.perf_counter() - begun)
    print(f"\n{sorted(times)[runs // 2] * 1e6}", flush=True)
    group.gather(0)
    time.sleep(1)  # what this rank has sent last must still get out: others wait for it
    os._exit(0)


main()
