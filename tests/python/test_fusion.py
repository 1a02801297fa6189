"""Fused convolutions: real models, run with and without, must give what MindSpore's own executor gives."""

import gc
import logging
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from fused_nets import Chain, check_all_sizes, export, fused_convolutions, norm, opened
from mindspore_serving.worker import _mindspore, fusion, way
from mindspore_serving.worker.agreement import difference, random_inputs
from mindspore_serving.worker.mindspore_model import load_model
from mindspore_serving.worker.session_library import Session, SessionLibrary

ms: Any = _mindspore.import_mindspore()
from mindspore import nn, ops  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("library")]


class Residual(nn.Cell):
    """A block whose shortcut is the left or the right operand, and perhaps is used again."""

    def __init__(self, left: bool = False, again: bool = False, down: bool = False):
        super().__init__()
        self.left, self.again = left, again
        self.stem = Chain(nn.Conv2d(3, 16, 3), norm(16), nn.ReLU())
        self.body = Chain(nn.Conv2d(16, 16, 3), norm(16))
        self.shortcut = Chain(nn.Conv2d(16, 16, 1), norm(16)) if down else None
        self.relu = nn.ReLU()

    def construct(self, x):
        x = self.stem(x)
        shortcut = x if self.shortcut is None else self.shortcut(x)
        y = shortcut + self.body(x) if self.left else self.body(x) + shortcut
        y = self.relu(y)
        return y * x if self.again else y


class Intermediate(nn.Cell):
    """What the normalization would be folded into is an output too."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 8, 3), norm(8), nn.ReLU()

    def construct(self, x):
        y = self.conv(x)
        return self.relu(self.norm(y)), y


class WeightIsInput(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv = ops.Conv2D(4, 3)

    def construct(self, x, weight):
        return ops.relu(self.conv(x, weight))


class Half(nn.Cell):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3).to_float(ms.float16)

    def construct(self, x):
        return ops.cast(ops.relu(self.conv(x)), ms.float32)


class SharedWeight(nn.Cell):
    """One weight, once with a normalization behind it and once without."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3), norm(8)

    def construct(self, x):
        return ops.relu(self.conv(x)) + ops.tanh(self.norm(self.conv(x * 2)))


class LeNet(nn.Cell):
    def __init__(self):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 6, 5, pad_mode="valid"), nn.Conv2d(6, 16, 5, pad_mode="valid", has_bias=True)
        self.pool, self.relu, self.flatten = nn.MaxPool2d(2, 2), nn.ReLU(), nn.Flatten()
        self.fc = nn.Dense(400, 10)

    def construct(self, x):
        x = self.pool(self.relu(self.c1(x)))
        return self.fc(self.flatten(self.pool(self.relu(self.c2(x)))))


IMAGE = (4, 3, 17, 23)
WIDE = (2, 32, 9, 9)


@pytest.mark.parametrize(
    ("net", "shape", "expected"),
    [
        (lambda: Chain(nn.Conv2d(3, 8, 3)), IMAGE, 1),
        (lambda: Chain(nn.Conv2d(3, 8, 3), norm(8), nn.ReLU()), IMAGE, 1),
        (lambda: Chain(nn.Conv2d(3, 8, 3, has_bias=True, bias_init="normal"), norm(8), nn.ReLU6()), IMAGE, 1),
        (lambda: Chain(nn.Conv2d(3, 5, 3, has_bias=True, bias_init="normal"), nn.ReLU()), IMAGE, 1),
        (lambda: Chain(nn.Conv2d(3, 8, 3, 2), norm(8), nn.ReLU6()), IMAGE, 1),
        (lambda: Chain(nn.Conv2d(3, 8, (3, 5), (1, 2), pad_mode="valid"), nn.Tanh()), IMAGE, 1),
        (lambda: Chain(nn.Conv2d(3, 8, 3, pad_mode="pad", padding=(0, 1, 2, 1)), norm(8)), IMAGE, 1),
        (lambda: Chain(nn.Conv2d(3, 8, 3, pad_mode="pad", padding=2, dilation=2), norm(8)), IMAGE, 1),
        (lambda: Chain(nn.Conv2d(3, 16, 3, dilation=(2, 1)), norm(16), nn.ReLU()), IMAGE, 1),
        (lambda: Chain(nn.Conv2d(32, 32, 3, group=32), norm(32), nn.ReLU6()), WIDE, 1),
        (lambda: Chain(nn.Conv2d(32, 64, 3, 2, group=4), norm(64), nn.ReLU(), nn.Conv2d(64, 8, 1)), WIDE, 2),
        (lambda: Chain(norm(3), nn.ReLU(), nn.Conv2d(3, 8, 1), nn.MaxPool2d(3, 2), nn.AvgPool2d(2)), IMAGE, 1),
        (lambda: Chain(nn.Conv2d(3, 8, 3), nn.MaxPool2d(3, 2, pad_mode="same"), nn.Conv2d(8, 8, 1)), IMAGE, 2),
        (lambda: Chain(nn.Conv2d(3, 8, 3), nn.MaxPool2d((2, 3), (3, 1), pad_mode="same")), IMAGE, 1),
        (Residual, IMAGE, 2),
        (lambda: Residual(left=True), IMAGE, 2),
        (lambda: Residual(again=True), IMAGE, 2),
        (lambda: Residual(left=True, down=True), IMAGE, 3),
        (lambda: Residual(down=True, again=True), IMAGE, 3),
        (Intermediate, IMAGE, 1),
        (SharedWeight, (4, 8, 9, 9), 2),
        (LeNet, (5, 1, 32, 32), 2),
        (Half, IMAGE, 0),
    ],
)
def test_fused_convolutions_compute_what_mindspore_computes(
    tmp_path: Path, library: SessionLibrary, net: Any, shape: tuple[int, ...], expected: int
):
    model = load_model(
        export(tmp_path, net(), shape), with_batch_dim=True, device_type="CPU", compile_budget_s=60, kernel_threads=1
    )
    assert model.batch_sizes[-1] == shape[0]
    inputs = random_inputs(model.inputs, 1, seed=5)
    with opened(library, model) as fused, opened(library, model, "none") as plain:
        assert fused_convolutions(fused) == expected
        assert plain.way == "kernel replay"
        check_all_sizes(model, inputs, fused, plain)


def winograd_count(session: Session) -> int:
    """How many of the fused convolutions are computed by Winograd's method."""
    *_, last = session.way.split(", ")
    return int(last.split()[0]) if "Winograd" in last else 0


needs_avx2 = pytest.mark.skipif(
    "avx2" not in Path("/proc/cpuinfo").read_text(encoding="utf-8").split(), reason="this processor has no AVX2"
)


@needs_avx2
@pytest.mark.parametrize("tile", ["2", "4"])
@pytest.mark.parametrize(
    ("net", "shape", "expected"),
    [
        (lambda: Chain(nn.Conv2d(8, 16, 3)), (2, 8, 9, 14), 1),
        (lambda: Chain(nn.Conv2d(16, 24, 3), norm(24), nn.ReLU6()), (2, 16, 7, 7), 1),
        (lambda: Chain(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, pad_mode="valid"), nn.ReLU()), IMAGE, 1),
        (lambda: Chain(nn.Conv2d(8, 8, 3, pad_mode="pad", padding=(0, 1, 2, 1)), nn.MaxPool2d(2, 2)), WIDE, 1),
        (lambda: Residual(left=True, down=True), IMAGE, 1),
        (lambda: Residual(again=True), IMAGE, 1),
        (SharedWeight, (4, 8, 9, 9), 2),
        (lambda: Chain(nn.Conv2d(32, 32, 3, 2), nn.Conv2d(32, 32, 3, dilation=2)), WIDE, 0),
        (lambda: Chain(nn.Conv2d(32, 32, 3, group=2), nn.Conv2d(32, 12, 3), nn.Conv2d(12, 8, 3)), WIDE, 0),
        (lambda: Chain(nn.Conv2d(32, 32, (1, 3)), nn.Conv2d(32, 32, 5)), WIDE, 0),
    ],
)
def test_winograds_method_computes_what_mindspore_computes(
    tmp_path: Path, library: SessionLibrary, net: Any, shape: tuple[int, ...], expected: int, tile: str
):
    if shape == WIDE and expected > 0:
        shape = (2, 8, 9, 9)
    model = load_model(
        export(tmp_path, net(), shape), with_batch_dim=True, device_type="CPU", compile_budget_s=60, kernel_threads=1
    )
    inputs = random_inputs(model.inputs, 1, seed=5)
    with opened(library, model, winograd=tile) as session:
        assert winograd_count(session) == expected
        for size in [*model.batch_sizes, *model.batch_sizes[::-1]]:
            rows = [array[:size] for array in inputs]
            for want, have in zip(model.python_run(rows), session.run(rows), strict=True):
                np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4 * max(1, np.abs(want).max()))


@needs_avx2
def test_what_was_measured_holds_for_every_session(tmp_path: Path, library: SessionLibrary):
    path = export(tmp_path, Chain(nn.Conv2d(64, 64, 3), norm(64), nn.ReLU()), (2, 64, 20, 20))
    model = load_model(path, with_batch_dim=True, device_type="CPU", kernel_threads=1)
    inputs = random_inputs(model.inputs, 1)
    with opened(library, model) as one, opened(library, model) as other, opened(library, model, winograd="never") as no:
        assert (winograd_count(one), winograd_count(no)) == (winograd_count(other), 0)
        np.testing.assert_array_equal(one.run(inputs)[0], other.run(inputs)[0])
    with pytest.raises(RuntimeError, match=r"'winograd' = '3': must be measured, never, 2 or 4"):
        opened(library, model, winograd="3")


@pytest.mark.parametrize("without", ["right", "wrong"])
def test_winograds_method_is_left_out_where_it_computes_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, without: str
):
    tried: list[str] = []
    run, make = Session.run, SessionLibrary.open

    def force(self: SessionLibrary, options: Any) -> Session:
        tried.append(options.get("winograd", "") if "fuse" in options else "plain")
        measured = "fuse" in options and "winograd" not in options
        return make(self, {**options, "winograd": "4"} if measured else options)

    def spoil(self: Session, inputs: Any) -> list[np.ndarray]:
        outputs = run(self, inputs)
        wrong = "Winograd" in self.way or ("fused" in self.way and without == "wrong")
        return [output + 1 for output in outputs] if wrong else outputs

    monkeypatch.setattr(SessionLibrary, "open", force)
    monkeypatch.setattr(Session, "run", spoil)
    monkeypatch.setattr(fusion, "_best_runs", lambda *_: [2e-3, 1e-3])
    path = export(tmp_path, Residual(), IMAGE)
    model = load_model(path, with_batch_dim=True, device_type="CPU", kernel_threads=1)
    if "avx2" not in Path("/proc/cpuinfo").read_text(encoding="utf-8").split():
        return
    assert "Winograd's method is not used, because the result for batch size" in caplog.text
    assert tried.count("never") >= 1
    assert model.session_options.get("winograd") == ("never" if without == "right" else None)
    assert ("fuse" in model.session_options) == (without == "right")
    assert model.way == ("kernel replay, 2 convolutions fused" if without == "right" else "kernel replay")


def test_a_weight_that_is_an_input_is_not_fused(tmp_path: Path, library: SessionLibrary):
    path = export(tmp_path, WeightIsInput(), (2, 3, 9, 9), (4, 3, 3, 3))
    model = load_model(path, with_batch_dim=False, device_type="CPU", kernel_threads=1)
    assert "fuse" not in model.session_options
    inputs = random_inputs(model.inputs, 1)
    with opened(library, model) as session:
        assert fused_convolutions(session) == 0
        assert difference(model.python_run(inputs), session.run(inputs)) == ""


def test_chosen_batch_sizes_alone_are_fused(tmp_path: Path, library: SessionLibrary):
    path = export(tmp_path, Residual(), IMAGE)
    model = load_model(path, with_batch_dim=True, device_type="CPU", compile_budget_s=60, kernel_threads=1)
    inputs = random_inputs(model.inputs, 1)
    with opened(library, model, "1;4") as session, opened(library, model, "7") as none:
        assert (fused_convolutions(session), fused_convolutions(none)) == (2, 0)
        for size in model.batch_sizes:
            rows = [array[:size] for array in inputs]
            assert difference(none.run(rows), session.run(rows)) == ""


@pytest.mark.parametrize("net", [lambda: Residual(left=True, down=True), LeNet, SharedWeight])
@pytest.mark.parametrize("threads", ["2", "3", "5"])
def test_several_threads_compute_the_same(tmp_path: Path, library: SessionLibrary, net: Any, threads: str):
    shape = {LeNet: (5, 1, 32, 32), SharedWeight: (4, 8, 40, 40)}.get(net, (4, 3, 63, 61))
    path = export(tmp_path, net(), shape)
    model = load_model(path, with_batch_dim=True, device_type="CPU", compile_budget_s=60, kernel_threads=1)
    inputs = random_inputs(model.inputs, 1, seed=7)
    with opened(library, model) as one, opened(library, model, kernel_threads=threads) as several:
        assert fused_convolutions(several) == fused_convolutions(one) > 0
        for size in [*model.batch_sizes, *model.batch_sizes[::-1]] * 3:
            rows = [array[:size] for array in inputs]
            expected = [output.copy() for output in one.run(rows)]
            assert difference(expected, several.run(rows)) == ""
    library.open({**model.session_options, "kernel_threads": "1"}).close()


@pytest.mark.parametrize("faster", [True, False])
def test_with_several_threads_the_faster_form_is_taken_too(
    tmp_path: Path, library: SessionLibrary, monkeypatch: pytest.MonkeyPatch, faster: bool
):
    tried = []

    def best_runs(_sessions: Any, _inputs: Any, kernel_threads: int) -> list[float]:
        tried.append(kernel_threads)
        return [2e-3, 1e-3 if faster else 2e-3]

    monkeypatch.setattr(fusion, "_best_runs", best_runs)
    path = export(tmp_path, Residual(), IMAGE)
    model = load_model(path, with_batch_dim=True, device_type="CPU", kernel_threads=2)
    assert set(tried) == {2}
    assert ("fuse" in model.session_options) == faster
    assert model.way.startswith("kernel replay, 2 convolutions fused" if faster else "kernel replay")
    assert ("fused" in model.way) == faster
    with opened(library, model, kernel_threads="0") as session:
        assert session.way == "kernel replay (nothing is fused: kernel_threads must be given)"
    with pytest.raises(RuntimeError, match=r"'fuse' = 'some': not a number"):
        opened(library, model, "some")
    library.open({**model.session_options, "kernel_threads": "1"}).close()


def test_what_one_thread_was_fused_for_is_tried_again_with_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    times = {1: [2e-3, 1e-3], 2: [2e-3, 2e-3]}
    tried = []

    def best_runs(_sessions: Any, _inputs: Any, kernel_threads: int) -> list[float]:
        tried.append(kernel_threads)
        return times[kernel_threads]

    monkeypatch.setattr(fusion, "_best_runs", best_runs)
    monkeypatch.setattr(way, "choose_kernel_threads", lambda *_, **__: 2)
    path = export(tmp_path, Residual(), IMAGE)
    model = load_model(path, with_batch_dim=True, device_type="CPU", compile_budget_s=0)
    assert sorted(set(tried)) == [1, 2]
    assert "fuse" not in model.session_options
    assert model.session_options["kernel_threads"] == "2"
    assert model.way == "kernel replay"


@pytest.mark.parametrize("faster", [True, False])
def test_the_faster_form_is_taken_and_the_log_says_both_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, faster: bool
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(fusion, "_best_runs", lambda *_: [2e-3, 1e-3 if faster else 1.99e-3])
    path = export(tmp_path, Residual(), IMAGE)
    model = load_model(path, with_batch_dim=True, device_type="CPU", kernel_threads=1)
    assert ("fuse" in model.session_options) == faster
    assert model.way.startswith("kernel replay, 2 convolutions fused" if faster else "kernel replay")
    assert ("fused" in model.way) == faster
    expected = "a run takes 2.0000 ms, with fused layers " + ("1.0000 ms" if faster else "1.9900 ms")
    assert f"batch size 4, kernel threads 1: {expected}" in caplog.text


def test_a_run_that_takes_too_long_to_try_follows_the_smaller_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    times = iter([[2e-3, 1e-3], None, None])
    monkeypatch.setattr(fusion, "_best_runs", lambda *_: next(times))
    path = export(tmp_path, Residual(), IMAGE)
    model = load_model(path, with_batch_dim=True, device_type="CPU", compile_budget_s=60, kernel_threads=1)
    assert model.session_options["fuse"] == "1;2;4"


def test_a_fused_result_that_disagrees_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    run = Session.run

    def spoil(self: Session, inputs: Any) -> list[np.ndarray]:
        outputs = run(self, inputs)
        return [output + 1 for output in outputs] if "fused" in self.way else outputs

    monkeypatch.setattr(Session, "run", spoil)
    path = export(tmp_path, Residual(), IMAGE)
    model = load_model(path, with_batch_dim=True, device_type="CPU", kernel_threads=1)
    assert "fuse" not in model.session_options
    assert model.way == "kernel replay"
    assert 4 in model.batch_sizes
    assert "layers are not fused, because the result for batch size" in caplog.text


def test_sessions_give_back_their_memory(tmp_path: Path, library: SessionLibrary):
    path = export(tmp_path, Chain(nn.Conv2d(64, 512, 3), norm(512), nn.ReLU()), (2, 64, 8, 8))
    model = load_model(path, with_batch_dim=True, device_type="CPU", kernel_threads=1)
    inputs = random_inputs(model.inputs, 1)

    def resident_after(sessions: int) -> int:
        for _ in range(sessions):
            with opened(library, model) as session:
                assert fused_convolutions(session) == 1
                session.run(inputs)
        gc.collect()
        return int(psutil.Process().memory_info().rss)

    settled = resident_after(10)
    grown = resident_after(50) - settled
    assert grown < 12 << 20  # one session's weights take 1.2 MB, fifty sessions' 59
