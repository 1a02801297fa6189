"""Run as one rank: loads its part of each model as an agent does, runs it in both native ways, compares."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from mindspore_serving.worker import _mindspore
from mindspore_serving.worker.mindspore_model import load_model
from mindspore_serving.worker.rank_group import RankGroup, wait_for_scheduler
from mindspore_serving.worker.session_library import SessionLibrary


def main() -> None:
    folder, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
    _mindspore.import_mindspore()
    _mindspore.set_device("CPU", 0)
    from mindspore.communication import init

    wait_for_scheduler(os.environ["MS_SCHED_HOST"], int(os.environ["MS_SCHED_PORT"]), 120)
    init()
    group = RankGroup()
    assert group.gather(group.rank + 0.5) == [rank + 0.5 for rank in range(group.size)]
    for name, options in cases.items():
        model = load_model(
            str(folder / f"{name}_{group.rank}.mindir"), device_type="CPU", device_id=0, group=group, **options
        )
        print(f"{name}: {model.way} {model.batch_sizes}", flush=True)
        values = np.load(folder / f"{name}.npz")
        inputs, expected = values["inputs"], values["expected"]
        assert model.session_library is not None
        for way in ("auto", "run"):
            with SessionLibrary(model.session_library).open({**model.session_options, "way": way}) as session:
                # Twice each, with other values: a rank must not be a run behind the others.
                for size in [*(model.batch_sizes or [len(inputs)]), len(inputs)]:
                    for start in (0, 1):
                        rows = np.roll(inputs, start, axis=0)[:size]
                        (output,) = session.run([rows] if model.inputs else [])
                        wanted = np.roll(expected, start, axis=0)[:size]
                        np.testing.assert_allclose(output, wanted, rtol=1e-4, atol=1e-4, err_msg=f"{name} {way} {size}")
                        group.gather(0)  # a later stage is given nothing to wait for
    print("all right", flush=True)
    time.sleep(1)  # what this rank has sent last must still get out: others wait for it
    os._exit(0)  # MindSpore's own end takes seconds


main()
