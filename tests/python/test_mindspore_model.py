"""Real models, exported here, loaded as a worker loads them, and run in each way."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindspore_serving import _core
from mindspore_serving.worker import _mindspore, kernel_pool, mindspore_model, way
from mindspore_serving.worker.agreement import difference, random_inputs
from mindspore_serving.worker.mindspore_model import LoadedModel, load_model
from mindspore_serving.worker.session_library import LIBRARY_DIR_VARIABLE, Session, SessionLibrary, TensorInfo

REPLAY, RUN, PYTHON = "kernel replay", "backend run", "python executor"
KEY = b"0123456789abcdef"

ms: Any = _mindspore.import_mindspore()
from mindspore import Tensor, nn, ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="session", autouse=True)
def library() -> SessionLibrary:
    path = way.find_session_library()
    assert path is not None, "build the session library first: ./dev build"
    ms.set_device("CPU")
    return SessionLibrary(path)


class Add(nn.Cell):
    def construct(self, x, y):
        return x + y


class Mlp(nn.Cell):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.relu = nn.Dense(16, 32), nn.Dense(32, 4), nn.ReLU()

    def construct(self, x):
        return self.second(self.relu(self.first(x)))


class LeNet(nn.Cell):
    def __init__(self):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 6, 5, pad_mode="valid"), nn.Conv2d(6, 16, 5, pad_mode="valid")
        self.pool, self.relu, self.flatten = nn.MaxPool2d(2, 2), nn.ReLU(), nn.Flatten()
        self.fc = nn.Dense(400, 10)

    def construct(self, x):
        x = self.pool(self.relu(self.c1(x)))
        return self.fc(self.flatten(self.pool(self.relu(self.c2(x)))))


class If(nn.Cell):
    def construct(self, x, y):
        if ops.ReduceSum()(x) > 0:
            return x + y
        return x - y


class While(nn.Cell):
    def construct(self, x, y):
        i = Tensor(0, ms.int32)
        while i < 3:
            x = x + y
            i = i + 1
        return x


class Unique(nn.Cell):
    def construct(self, x):
        return ops.unique(x.reshape(-1))[0]


class Counter(nn.Cell):
    def __init__(self):
        super().__init__()
        self.total = ms.Parameter(Tensor(np.zeros((2, 2), np.float32)), name="total")

    def construct(self, x):
        ops.assign_add(self.total, x)
        return self.total + 0.0


class Constants(nn.Cell):
    def construct(self, x, y):
        return x, Tensor(np.ones(2, np.float32)), x + y


class Identity(nn.Cell):
    def construct(self, x, y):
        return y


class Tuples(nn.Cell):
    def construct(self, x, y):
        z = x + y
        return z, (x * 2, z), ops.reshape(z, (-1,)), ops.ReduceSum()(y)


class ConstantOperands(nn.Cell):
    def __init__(self):
        super().__init__()
        self.extra = Tensor(np.arange(4).reshape(2, 2).astype(np.float32))

    def construct(self, x, y):
        return ops.concat((x, self.extra, y), 0).transpose(1, 0)[:, 1:4], x * 2.5


class UnusedInput(nn.Cell):
    def construct(self, x, y):
        return x * 3


class Bias(nn.Cell):
    def construct(self, x, bias):
        return x + bias


class BatchMean(nn.Cell):
    """Not a model of independent rows: its result for a part of a batch differs."""

    def construct(self, x):
        return x - ops.ReduceMean(True)(x, 0)


class Noise(nn.Cell):
    def construct(self, x):
        return x + ops.StandardNormal()((4, 2))


class Twice(nn.Cell):
    def construct(self, x):
        return ops.cast(x, ms.float32) + 1


class Or(nn.Cell):
    def construct(self, x, y):
        return ops.logical_or(x, y)


Export = Callable[..., str]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Exports a net for inputs of these types and shapes, e.g. ((4, 2), np.float32)."""

    def write(net: Any, *inputs: tuple[tuple[int | None, ...], Any], **options: Any) -> str:
        tensors = [
            Tensor(shape=list(shape), dtype=getattr(ms, np.dtype(dtype).name))
            if None in shape
            else Tensor(np.zeros(shape, dtype))
            for shape, dtype in inputs
        ]
        net.set_train(False)
        if any(None in shape for shape, _ in inputs):
            net.set_inputs(*tensors)
        path = tmp_path / "model.mindir"
        ms.export(net, *tensors, file_name=str(path), file_format="MINDIR", **options)
        return str(path)

    return write


def open_session(model: LoadedModel, **options: str) -> Session:
    assert model.session_library is not None
    return SessionLibrary(model.session_library).open({**model.session_options, **options})


def float_inputs(model: LoadedModel, rows: int = 4, seed: int = 7) -> list[np.ndarray]:
    return random_inputs(model.inputs, rows, seed)


PAIR = (((2, 2), np.float32), ((2, 2), np.float32))


@pytest.mark.parametrize(
    ("net", "expected_way"),
    [
        (Add, REPLAY),
        (If, RUN),
        (While, RUN),
        (Constants, REPLAY),
        (Identity, REPLAY),
        (Tuples, REPLAY),
        (ConstantOperands, REPLAY),
        (UnusedInput, REPLAY),
    ],
)
def test_takes_the_fastest_way_that_fits_and_computes_the_same(export: Export, net: Any, expected_way: str):
    model = load_model(export(net(), *PAIR), with_batch_dim=False, device_type="CPU")
    assert model.way == expected_way
    assert (model.batch_size, model.batch_sizes) == (0, [])
    for seed in range(3):
        inputs = float_inputs(model, seed=seed)
        expected = net()(*[Tensor(array) for array in inputs])
        flat = list(_flat(expected))
        with open_session(model) as session:
            assert session.way == expected_way
            assert difference(flat, session.run(inputs)) == ""
        assert difference(flat, model.python_run(inputs)) == ""


def _flat(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, (tuple, list)):
        for element in value:
            yield from _flat(element)
    else:
        yield value.asnumpy()


def test_describes_inputs_and_outputs(export: Export):
    model = load_model(export(Tuples(), *PAIR), with_batch_dim=False, device_type="CPU")
    assert model.inputs == [TensorInfo("x", 11, (2, 2)), TensorInfo("y", 11, (2, 2))]
    assert [(info.dtype, info.dims) for info in model.outputs] == [
        (11, (2, 2)),
        (11, (2, 2)),
        (11, (2, 2)),
        (11, (4,)),
        (11, ()),
    ]
    with open_session(model) as session:
        assert [info.dims for info in session.inputs] == [(2, 2), (2, 2)]
        assert [info.dims for info in session.outputs] == [info.dims for info in model.outputs]


@pytest.mark.parametrize(
    ("net", "inputs", "sizes"),
    [
        (Mlp, (((32, 16), np.float32),), [1, 2, 4, 8, 16, 32]),
        (LeNet, (((6, 1, 32, 32), np.float32),), [1, 2, 4, 6]),
        (UnusedInput, (((4, 2), np.float32), ((4, 2), np.float32)), [1, 2, 4]),
        (If, (((4, 2), np.float32), ((4, 2), np.float32)), [1, 2, 4]),
    ],
)
def test_every_batch_size_gives_the_rows_of_the_full_batch(export: Export, net: Any, inputs: Any, sizes: list[int]):
    model = load_model(export(net(), *inputs), with_batch_dim=True, device_type="CPU", compile_budget_s=60)
    assert model.batch_sizes == sizes
    assert model.batch_size == sizes[-1]
    values = [np.abs(array) for array in float_inputs(model)]  # one side of If
    with open_session(model) as session:
        assert session.batch_sizes == sizes
        full = session.run(values)
        assert difference(model.python_run(values), full) == ""
        for size in sizes:
            rows = [array[:size] for array in values]
            assert difference([output[:size] for output in full], session.run(rows)) == ""
            assert difference([output[:size] for output in full], model.python_run(rows)) == ""
        with pytest.raises(RuntimeError, match="not compiled for batch size 3"):
            session.run([array[:3] for array in values])


def test_stops_adding_batch_sizes_when_time_is_up_but_keeps_one_and_its_own(export: Export):
    path = export(Mlp(), ((32, 16), np.float32))
    assert load_model(path, with_batch_dim=True, device_type="CPU", compile_budget_s=0).batch_sizes == [1, 32]
    assert load_model(path, with_batch_dim=True, device_type="CPU", max_buckets=3).batch_sizes == [1, 4, 32]


def test_a_large_model_shares_its_weights_between_batch_sizes(export: Export, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mindspore_model, "_LARGE_FILE", 0)
    model = load_model(export(LeNet(), ((8, 1, 32, 32), np.float32)), with_batch_dim=True, device_type="CPU")
    assert model.way.startswith(REPLAY)
    assert (model.batch_sizes, len(model.cells)) == ([1, 8], 1)
    values = float_inputs(model)
    with open_session(model) as session:
        full = session.run(values)
        assert [info.dims for info in session.inputs] == [(8, 1, 32, 32)]
        assert difference(model.python_run(values), full) == ""
        assert difference([full[0][:1]], session.run([values[0][:1]])) == ""


def test_a_batch_size_that_disagrees_is_dropped(export: Export, caplog: pytest.LogCaptureFixture):
    model = load_model(export(BatchMean(), ((4, 2), np.float32)), with_batch_dim=True, device_type="CPU")
    assert (model.way, model.batch_sizes) == (REPLAY, [4])
    assert "batch size 1 is not used" in caplog.text
    with open_session(model) as session:
        assert session.batch_sizes == [4]


def test_an_input_without_batch_dimension_keeps_its_shape(export: Export):
    path = export(Bias(), ((4, 2), np.float32), ((4, 2), np.float32))
    with pytest.raises(RuntimeError, match="without_batch_dim_inputs"):
        load_model(path, with_batch_dim=True, without_batch_dim_inputs=(2,), device_type="CPU")
    path = export(Bias(), ((4, 2), np.float32), ((2,), np.float32))
    with pytest.raises(RuntimeError, match="batch size cannot be 0"):
        load_model(path, with_batch_dim=True, device_type="CPU")
    model = load_model(path, with_batch_dim=True, without_batch_dim_inputs=(1,), device_type="CPU")
    assert model.batch_sizes == [1, 2, 4]
    x, bias = float_inputs(model)
    with open_session(model) as session:
        np.testing.assert_array_equal(session.run([x[:2], bias])[0], x[:2] + bias)


def test_outputs_without_the_batch_are_refused(export: Export):
    with pytest.raises(RuntimeError, match="batch size of its inputs is 2, but its outputs"):
        load_model(export(Tuples(), *PAIR), with_batch_dim=True, device_type="CPU")


@pytest.mark.parametrize("with_batch_dim", [False, True])
def test_a_dynamic_batch_takes_any_number_of_rows(export: Export, with_batch_dim: bool):
    shape = ((None, 2), np.float32)
    model = load_model(export(Add(), shape, shape), with_batch_dim=with_batch_dim, device_type="CPU")
    assert (model.way, model.batch_size, model.batch_sizes) == (RUN, -1 if with_batch_dim else 0, [])
    assert [info.dims for info in model.outputs] == [(-1, 2)]
    with open_session(model) as session:
        for rows in (1, 5, 64):
            x, y = float_inputs(model, rows)
            np.testing.assert_array_equal(session.run([x, y])[0], x + y)


def test_an_output_whose_size_depends_on_the_values(export: Export):
    model = load_model(export(Unique(), ((6,), np.float32)), with_batch_dim=False, device_type="CPU")
    assert (model.way, model.outputs[0].dims) == (RUN, (-1,))
    with open_session(model) as session:
        np.testing.assert_array_equal(session.run([np.float32([3, 1, 3, 3, 2, 1])])[0], [3, 1, 2])
        assert session.run([np.zeros(6, np.float32)])[0].shape == (1,)


def test_a_model_with_state_starts_with_the_state_of_its_file(export: Export):
    model = load_model(export(Counter(), ((2, 2), np.float32)), with_batch_dim=False, device_type="CPU")
    assert model.way == RUN
    one = np.ones((2, 2), np.float32)
    with open_session(model) as session:
        assert [float(session.run([one])[0][0, 0]) for _ in range(3)] == [1, 2, 3]
    assert float(model.python_run([one])[0][0, 0]) == 4


def test_a_model_that_returns_noise_is_served(export: Export, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    model = load_model(export(Noise(), ((4, 2), np.float32)), with_batch_dim=False, device_type="CPU")
    assert model.session_library is not None
    assert "only shapes and types were checked" in caplog.text


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64, np.bool_]
)
def test_element_types(export: Export, dtype: Any):
    path = export(Twice(), ((2, 3), dtype))
    model = load_model(path, with_batch_dim=False, device_type="CPU")
    assert model.way == REPLAY
    values = np.array([[0, 1, 0], [1, 1, 0]], dtype)
    with open_session(model) as session:
        np.testing.assert_array_equal(session.run([values])[0], values.astype(np.float32) + 1)
        with pytest.raises(RuntimeError, match="input 0"):
            session.run([values.astype(np.uint16)])


def test_boolean_outputs(export: Export):
    pair = ((3,), np.bool_)
    model = load_model(export(Or(), pair, pair), with_batch_dim=False, device_type="CPU")
    with open_session(model) as session:
        outputs = session.run([np.array([True, False, False]), np.array([False, False, True])])
    np.testing.assert_array_equal(outputs[0], [True, False, True])


def test_inputs_that_do_not_fit_are_refused_by_the_session(export: Export):
    for net in (Add, If):
        model = load_model(export(net(), *PAIR), with_batch_dim=False, device_type="CPU")
        good = np.zeros((2, 2), np.float32)
        with open_session(model) as session:
            for bad in (np.zeros((2, 3), np.float32), np.zeros(4, np.float32), np.zeros((2, 2), np.float64)):
                with pytest.raises(RuntimeError, match=r"input 1 \(.*\) wants type 11 \[2, 2\]"):
                    session.run([good, bad])
            np.testing.assert_array_equal(session.run([good, good])[0], good)


def decrypt_with(key: bytes, mode: str) -> Callable[[str], bytes]:
    return lambda path: _core.decrypt_model_file(path, key, mode)


@pytest.mark.parametrize("length", [16, 24, 32])
@pytest.mark.parametrize("mode", ["AES-GCM", "AES-CBC"])
def test_an_encrypted_model_opens_with_its_key_alone(export: Export, mode: str, length: int):
    key = (KEY * 2)[:length]
    path = export(Add(), *PAIR, enc_key=key, enc_mode=mode)
    model = load_model(path, with_batch_dim=False, decrypt=decrypt_with(key, mode), device_type="CPU")
    assert model.way == REPLAY
    assert model.inputs[0] == TensorInfo("x", 11, (2, 2))
    with pytest.raises(RuntimeError, match=r"model\.mindir.*are dec_key and dec_mode"):
        load_model(path, with_batch_dim=False, decrypt=decrypt_with(key[::-1], mode), device_type="CPU")
    other = "AES-CBC" if mode == "AES-GCM" else "AES-GCM"
    with pytest.raises(RuntimeError, match=r"model\.mindir.*are dec_key and dec_mode"):
        load_model(path, with_batch_dim=False, decrypt=decrypt_with(key, other), device_type="CPU")
    with pytest.raises(RuntimeError, match=r"model\.mindir.*it is encrypted"):
        load_model(path, with_batch_dim=False, device_type="CPU")


def test_a_file_that_is_no_model_is_named(tmp_path: Path, export: Export):
    missing = tmp_path / "missing.mindir"
    with pytest.raises(RuntimeError, match=r"missing\.mindir: No such file"):
        load_model(str(missing), with_batch_dim=False, device_type="CPU")
    model = Path(export(Mlp(), ((2, 16), np.float32))).read_bytes()
    for content in (b"", b"not a model at all", model[: len(model) // 2], bytes(range(256)) * 8):
        bad = tmp_path / "bad.mindir"
        bad.write_bytes(content)
        with pytest.raises(RuntimeError, match=r"Load model failed, .*bad\.mindir: it is not a MindIR"):
            load_model(str(bad), with_batch_dim=False, device_type="CPU")


def test_without_a_library_models_run_through_the_python_executor(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv(LIBRARY_DIR_VARIABLE, str(tmp_path / "nowhere"))
    way.usable_library.cache_clear()
    try:
        model = load_model(export(Mlp(), ((4, 16), np.float32)), with_batch_dim=True, device_type="CPU")
    finally:
        way.usable_library.cache_clear()
    assert (model.way, model.session_library, model.batch_sizes) == (PYTHON, None, [1, 2, 4])
    assert "python -m mindspore_serving.build_session" in caplog.text
    assert [info.dims for info in model.outputs] == [(4, 4)]
    values = float_inputs(model)[0]
    assert difference([model.python_run([values])[0][:2]], model.python_run([values[:2]])) == ""


def test_a_library_for_another_mindspore_is_not_opened(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    library = way.find_session_library()
    assert library is not None
    content = library.read_bytes()
    version = f"built-for-mindspore={ms.__version__}".encode()
    assert version in content
    (tmp_path / library.name).write_bytes(content.replace(version, b"built-for-mindspore=9" + version[21:]))
    monkeypatch.setenv(LIBRARY_DIR_VARIABLE, str(tmp_path))
    way.usable_library.cache_clear()
    try:
        model = load_model(export(Add(), *PAIR), with_batch_dim=False, device_type="CPU")
    finally:
        way.usable_library.cache_clear()
    assert model.way == PYTHON
    assert "it was built for MindSpore 9" in caplog.text


def test_the_library_refuses_another_mindspore_and_unknown_options(export: Export, library: SessionLibrary):
    model = load_model(export(Add(), *PAIR), with_batch_dim=False, device_type="CPU")
    with pytest.raises(RuntimeError, match=r"built for MindSpore .* but MindSpore 1\.0 is running.*build_session"):
        open_session(model, mindspore_version="1.0")
    with pytest.raises(RuntimeError, match="'colour' = 'red': unknown option"):
        open_session(model, colour="red")
    with pytest.raises(RuntimeError, match="compiled no graph 'nonsense'"):
        open_session(model, phases="0:nonsense")
    with pytest.raises(RuntimeError, match="must be auto, replay or run"):
        open_session(model, way="fast")
    with pytest.raises(RuntimeError, match="'phases' is missing"):
        library.open({})


def test_replay_is_refused_with_its_reason(export: Export):
    reasons = {If: "control flow", Counter: "side effect"}
    for net, reason in reasons.items():
        inputs = PAIR if net is If else PAIR[:1]
        model = load_model(export(net(), *inputs), with_batch_dim=False, device_type="CPU")
        with pytest.raises(RuntimeError, match=f"kernel replay: .*{reason}"):
            open_session(model, way="replay")


def test_the_kernel_pool_can_be_sized(export: Export):
    path = export(Mlp(), ((8, 16), np.float32))
    model = load_model(path, with_batch_dim=True, device_type="CPU", kernel_threads=1)
    assert model.session_options["kernel_threads"] == "1"
    values = float_inputs(model)
    with open_session(model) as alone, open_session(model, kernel_threads="2") as two:
        assert difference(alone.run(values), two.run(values)) == ""
    with pytest.raises(RuntimeError, match=r"kernel_threads.*at most 1024"):
        open_session(model, kernel_threads="1000000")


class Softmaxes(nn.Cell):
    def construct(self, x):
        for _ in range(4):
            x = ops.exp(ops.softmax(x, -1))
        return x


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


def test_two_sessions_of_two_models_run_in_parallel_threads(export: Export, tmp_path: Path):
    import threading

    models = []
    for name in ("a", "b"):
        Path(export(Mlp(), ((8, 16), np.float32))).rename(tmp_path / f"{name}.mindir")
        models.append(load_model(str(tmp_path / f"{name}.mindir"), with_batch_dim=True, device_type="CPU"))
    inputs = [float_inputs(model) for model in models]
    expected = [model.python_run(values) for model, values in zip(models, inputs, strict=True)]
    wrong: list[str] = []

    def work(index: int, session: Session) -> None:
        for _ in range(500):
            wrong.extend(filter(None, [difference(expected[index], session.run(inputs[index]))]))

    with open_session(models[0]) as first, open_session(models[1]) as second:
        threads = [threading.Thread(target=work, args=(i, s)) for i, s in enumerate((first, second))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert wrong == []
    assert not any(thread.is_alive() for thread in threads)
