"""How many threads MindSpore's kernels share."""

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mindspore_nets import Export, Mlp, Softmaxes, float_inputs, open_session
from mindspore_serving.worker import kernel_pool
from mindspore_serving.worker.agreement import difference, random_inputs
from mindspore_serving.worker.mindspore_model import load_model
from mindspore_serving.worker.session_library import SessionLibrary

pytestmark = pytest.mark.filterwarnings("ignore")


def test_the_kernel_pool_can_be_sized(export: Export):
    path = export(Mlp(), ((8, 16), np.float32))
    model = load_model(path, with_batch_dim=True, device_type="CPU", kernel_threads=1)
    assert model.session_options["kernel_threads"] == "1"
    values = float_inputs(model)
    with open_session(model) as alone, open_session(model, kernel_threads="2") as two:
        assert difference(alone.run(values), two.run(values)) == ""
    with pytest.raises(RuntimeError, match=r"kernel_threads.*at most 1024"):
        open_session(model, kernel_threads="1000000")


def processor_time() -> tuple[int, int]:
    """Clock ticks that this thread, and that all others of this process have used."""
    ticks: dict[bool, int] = {True: 0, False: 0}
    for task in Path("/proc/self/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        ticks[int(task.name) == threading.get_native_id()] += int(fields[11]) + int(fields[12])
    return ticks[True], ticks[False]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_the_number_of_threads_is_what_an_operator_splits_its_work_among(export: Export):
    path = export(Softmaxes(), ((512, 1024), np.float32))
    model = load_model(path, with_batch_dim=False, device_type="CPU", kernel_threads=1)
    inputs = random_inputs(model.inputs, 1)

    def used(threads: str) -> tuple[int, int]:
        with open_session(model, kernel_threads=threads) as session:
            own, others = processor_time()
            deadline = time.monotonic() + 60
            while True:
                session.repeat(inputs, 20)
                now = processor_time()
                spent = now[0] - own, now[1] - others
                if (spent[0] >= 20 and (threads == "1" or spent[1] >= 5)) or time.monotonic() > deadline:
                    return spent

    own, others = used("1")
    assert others * 10 <= own
    own, others = used("2")
    assert others >= 5


def test_a_tiny_model_is_not_split_among_threads(export: Export, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernel_pool, "_largest_choice", 1)
    model = load_model(export(Mlp(), ((8, 16), np.float32)), with_batch_dim=True, device_type="CPU")
    assert model.session_options["kernel_threads"] == "1"


def test_the_kernel_pool_grows_where_it_pays_and_never_shrinks(export: Export, monkeypatch: pytest.MonkeyPatch):
    model = load_model(export(Mlp(), ((8, 16), np.float32)), with_batch_dim=True, device_type="CPU", kernel_threads=1)
    assert model.session_library is not None
    library = SessionLibrary(model.session_library)
    options = {key: value for key, value in model.session_options.items() if key != "kernel_threads"}
    times = iter([1e-3, 0.95e-3, 1e-3, 0.4e-3])
    monkeypatch.setattr(kernel_pool, "_best_run", lambda *_: next(times))
    monkeypatch.setattr(kernel_pool, "_largest_choice", 1)
    choices = [kernel_pool.choose_kernel_threads(library, options, float_inputs(model), 2) for _ in range(3)]
    assert choices == [1, 2, 2]
    library.open({**options, "kernel_threads": "1"}).close()
