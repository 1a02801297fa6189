"""Fused dense layers: real models, run with and without, must give what NumPy and MindSpore's own executor give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fused_nets import Chain, check_all_sizes, export, fused_counts, opened
from mindspore_serving.worker import _mindspore, fusion
from mindspore_serving.worker.agreement import difference, random_inputs
from mindspore_serving.worker.mindspore_model import LoadedModel, load_model
from mindspore_serving.worker.session_library import SessionLibrary

ms: Any = _mindspore.import_mindspore()
from mindspore import Parameter, Tensor, nn, ops  # noqa: E402

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("library")]

RANDOM = np.random.default_rng(3)
INPUTS, OUTPUTS = 24, 16


def values(*shape: int) -> np.ndarray:
    return RANDOM.uniform(-1, 1, shape).astype(np.float32)


def dense(inputs: int, outputs: int, **options: Any) -> Any:
    return nn.Dense(inputs, outputs, Tensor(values(outputs, inputs)), Tensor(values(outputs)), **options)


def load(path: str, **options: Any) -> LoadedModel:
    return load_model(path, with_batch_dim=True, device_type="CPU", compile_budget_s=60, kernel_threads=1, **options)


WEIGHT, BIAS, MORE = values(INPUTS, OUTPUTS), values(OUTPUTS), values(OUTPUTS)


class Product(nn.Cell):
    """x times a weight that lies in either order."""

    def __init__(self, transposed: bool = False):
        super().__init__()
        self.product = ops.MatMul(transpose_b=transposed)
        self.weight = Parameter(Tensor(np.ascontiguousarray(WEIGHT.T) if transposed else WEIGHT), name="weight")
        self.bias = Parameter(Tensor(BIAS), name="bias")
        self.more = Parameter(Tensor(MORE), name="more")
        self.row = Parameter(Tensor(BIAS.reshape(1, OUTPUTS)), name="row")

    def construct(self, x):
        return self.product(x, self.weight)


class Right(Product):
    def construct(self, x):
        return self.product(x, self.weight) + self.bias


class Left(Product):
    def construct(self, x):
        return self.bias + self.product(x, self.weight)


class Row(Product):
    def construct(self, x):
        return self.product(x, self.weight) + self.row


class BiasAdd(Product):
    def construct(self, x):
        return ops.bias_add(self.product(x, self.weight), self.bias)


class Relu(Product):
    def construct(self, x):
        return ops.relu(self.product(x, self.weight))


class TwoVectors(Product):
    def construct(self, x):
        return ops.relu(self.more + (self.product(x, self.weight) + self.bias))


class Relu6(Product):
    def construct(self, x):
        return ops.relu6(self.product(x, self.weight) + self.bias)


class Sigmoid(Product):
    def construct(self, x):
        return ops.sigmoid(self.product(x, self.weight) + self.bias)


class Tanh(Product):
    def construct(self, x):
        return ops.tanh(self.product(x, self.weight) + self.bias)


class Gelu(Product):
    def construct(self, x):
        return ops.gelu(self.product(x, self.weight) + self.bias, approximate="tanh")


class VectorBehindRelu(Product):
    def construct(self, x):
        return -(ops.relu(self.product(x, self.weight)) + self.bias)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("transposed", [False, True], ids=["plain", "transposed"])
@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (Product, lambda y: y),
        (Right, lambda y: y + BIAS),
        (Left, lambda y: y + BIAS),
        (Row, lambda y: y + BIAS),
        (BiasAdd, lambda y: y + BIAS),
        (Relu, relu),
        (TwoVectors, lambda y: relu(y + BIAS + MORE)),
        (Relu6, lambda y: np.clip(y + BIAS, 0, 6)),
        (Sigmoid, lambda y: 1 / (1 + np.exp(-y - BIAS))),
        (Tanh, lambda y: np.tanh(y + BIAS)),
        (Gelu, lambda y: gelu(y + BIAS)),
        (VectorBehindRelu, lambda y: -(relu(y) + BIAS)),
    ],
)
def test_a_dense_layer_computes_what_numpy_computes(
    tmp_path: Path, library: SessionLibrary, net: Any, expected: Callable[[Any], Any], transposed: bool
):
    model = load(export(tmp_path, net(transposed), (32, INPUTS)))
    assert model.batch_sizes == [1, 2, 4, 8, 16, 32]
    rows = 3 * values(32, INPUTS)
    with opened(library, model) as fused:
        assert fused_counts(fused) == (0, 1)
        for size in [*model.batch_sizes, *model.batch_sizes[::-1]]:
            outputs = fused.run([rows[:size]])
            assert difference(model.python_run([rows[:size]]), outputs) == ""
            product = rows[:size].astype(np.float64) @ WEIGHT.astype(np.float64)
            np.testing.assert_allclose(outputs[0], expected(product), rtol=1e-4, atol=1e-4)


class Intermediate(nn.Cell):
    """The sums before the activation are an output too."""

    def __init__(self):
        super().__init__()
        self.layer = dense(INPUTS, OUTPUTS)

    def construct(self, x):
        y = self.layer(x)
        return ops.relu(y), y


class ReadTwice(nn.Cell):
    def __init__(self):
        super().__init__()
        self.layer, self.next = dense(INPUTS, OUTPUTS), dense(OUTPUTS, OUTPUTS, activation="relu")

    def construct(self, x):
        y = self.layer(x)
        return self.next(y) + ops.tanh(y)


class Shared(nn.Cell):
    """One square weight, once as it is and once transposed."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(Tensor(values(OUTPUTS, OUTPUTS)), name="weight")
        self.plain, self.transposed = ops.MatMul(), ops.MatMul(transpose_b=True)

    def construct(self, x):
        return ops.relu(self.plain(x, self.weight)) - ops.relu(self.transposed(x, self.weight))


class Images(nn.Cell):
    """Convolutions and dense layers together."""

    def __init__(self):
        super().__init__()
        self.conv = Chain(nn.Conv2d(3, 8, 3, has_bias=True, bias_init="normal"), nn.ReLU(), nn.MaxPool2d(2, 2))
        self.flatten = nn.Flatten()
        self.body = Chain(dense(8 * 4 * 4, 32), nn.ReLU(), dense(32, 10))

    def construct(self, x):
        return self.body(self.flatten(self.conv(x)))


class Rows(nn.Cell):
    """Of three dimensions: MindSpore itself makes two of them, or multiplies each for itself."""

    def __init__(self, each: bool):
        super().__init__()
        self.layer, self.weight, self.each = dense(INPUTS, OUTPUTS), Parameter(Tensor(WEIGHT), name="w"), each

    def construct(self, x):
        return ops.matmul(x, self.weight) if self.each else ops.relu(self.layer(x))


class LeftWeight(nn.Cell):
    """The constant matrix is the first operand, or the other one is transposed."""

    def __init__(self, transpose_a: bool):
        super().__init__()
        self.product = ops.MatMul(transpose_a=transpose_a)
        self.weight = Parameter(Tensor(values(6, 6)), name="weight")
        self.left = not transpose_a

    def construct(self, x):
        return self.product(self.weight, x) if self.left else self.product(x, self.weight)


class Half(nn.Cell):
    def __init__(self):
        super().__init__()
        self.layer = dense(INPUTS, OUTPUTS).to_float(ms.float16)

    def construct(self, x):
        return ops.cast(ops.relu(self.layer(x)), ms.float32)


@pytest.mark.parametrize(
    ("net", "shape", "expected"),
    [
        (lambda: Chain(dense(INPUTS, 200), nn.ReLU(), dense(200, 7), nn.Softmax()), (32, INPUTS), (0, 2)),
        (lambda: Chain(dense(INPUTS, 1), nn.Sigmoid()), (4, INPUTS), (0, 1)),
        (lambda: Chain(dense(1, 3), nn.LeakyReLU(), dense(3, 5)), (4, 1), (0, 2)),
        (lambda: Chain(nn.Dense(INPUTS, OUTPUTS, has_bias=False), nn.Tanh(), nn.ReLU()), (4, INPUTS), (0, 1)),
        (lambda: Chain(dense(INPUTS, OUTPUTS), nn.GELU(approximate=False)), (4, INPUTS), (0, 1)),
        (Intermediate, (4, INPUTS), (0, 1)),
        (ReadTwice, (4, INPUTS), (0, 2)),
        (Shared, (4, OUTPUTS), (0, 2)),
        (Images, (8, 3, 8, 8), (1, 2)),
        (lambda: Rows(each=False), (1, 3, INPUTS), (0, 1)),
        (lambda: Rows(each=True), (4, 3, INPUTS), (0, 0)),
        (lambda: LeftWeight(transpose_a=True), (6, 6), (0, 0)),
        (lambda: LeftWeight(transpose_a=False), (6, 6), (0, 0)),
        (Half, (4, INPUTS), (0, 0)),
    ],
)
def test_fused_layers_compute_what_mindspore_computes(
    tmp_path: Path, library: SessionLibrary, net: Any, shape: tuple[int, ...], expected: tuple[int, int]
):
    model = load(export(tmp_path, net(), shape))
    inputs = random_inputs(model.inputs, 1, seed=5)
    with opened(library, model) as fused, opened(library, model, "none") as plain:
        assert fused_counts(fused) == expected
        assert fused_counts(plain) == (0, 0)
        check_all_sizes(model, inputs, fused, plain)


class Apart(nn.Cell):
    """The activation is behind the reshape to the input's dimensions; what is reshaped may be read twice."""

    def __init__(self, again: bool = False):
        super().__init__()
        self.first, self.second = dense(INPUTS, 2 * INPUTS), dense(2 * INPUTS, INPUTS)
        self.gelu, self.again = nn.GELU(), again

    def construct(self, x):
        y = self.first(x)
        z = self.second(self.gelu(y))
        return (ops.relu(z) + ops.tanh(z), y) if self.again else ops.sigmoid(z) + x


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("shape", [(3, INPUTS), (2, 3, INPUTS), (2, 1, 3, 5, INPUTS), (1, 2, 1, 2, 1, 2, INPUTS)])
def test_an_activation_behind_a_reshape_is_fused_too(
    tmp_path: Path, library: SessionLibrary, shape: tuple[int, ...], again: bool
):
    path = export(tmp_path, Apart(again), shape)
    model = load_model(path, with_batch_dim=False, device_type="CPU", kernel_threads=1)
    with opened(library, model) as fused, opened(library, model, "none") as plain:
        assert fused_counts(fused) == (0, 2)
        for seed in (1, 2):
            inputs = random_inputs(model.inputs, 1, seed=seed)
            outputs = fused.run(inputs)
            assert difference(model.python_run(inputs), outputs) == ""
            assert difference(plain.run(inputs), outputs) == ""


@pytest.mark.parametrize("threads", ["2", "5"])
def test_several_threads_compute_the_same(tmp_path: Path, library: SessionLibrary, threads: str):
    net = Chain(dense(300, 400), nn.ReLU(), dense(400, 7), nn.Tanh())
    model = load(export(tmp_path, net, (64, 300)))
    inputs = random_inputs(model.inputs, 1, seed=7)
    with opened(library, model) as one, opened(library, model, kernel_threads=threads) as several:
        assert fused_counts(several) == fused_counts(one) == (0, 2)
        for size in [*model.batch_sizes, *model.batch_sizes[::-1]] * 3:
            rows = [array[:size] for array in inputs]
            expected = [output.copy() for output in one.run(rows)]
            assert difference(expected, several.run(rows)) == ""
    library.open({**model.session_options, "kernel_threads": "1"}).close()


class WeightIsInput(nn.Cell):
    def construct(self, x, weight, bias):
        return ops.relu(ops.MatMul()(x, weight) + bias)


class BiasIsInput(nn.Cell):
    def __init__(self):
        super().__init__()
        self.product = ops.MatMul()
        self.weight = Parameter(Tensor(WEIGHT), name="weight")

    def construct(self, x, bias):
        return ops.relu(self.product(x, self.weight) + bias)


@pytest.mark.parametrize(
    ("net", "shapes", "expected"),
    [
        (WeightIsInput, ((4, INPUTS), (INPUTS, OUTPUTS), (OUTPUTS,)), (0, 0)),
        (BiasIsInput, ((4, INPUTS), (OUTPUTS,)), (0, 1)),
    ],
)
def test_what_is_an_input_is_not_folded(
    tmp_path: Path, library: SessionLibrary, net: Any, shapes: Any, expected: tuple[int, int]
):
    path = export(tmp_path, net(), *shapes)
    model = load_model(path, with_batch_dim=False, device_type="CPU", kernel_threads=1)
    with opened(library, model) as session:
        assert fused_counts(session) == expected
        for seed in (1, 2):
            inputs = random_inputs(model.inputs, 1, seed=seed)
            assert difference(model.python_run(inputs), session.run(inputs)) == ""


@pytest.mark.parametrize("faster", [True, False])
def test_the_faster_form_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faster: bool):
    monkeypatch.setattr(fusion, "_best_runs", lambda *_: [2e-3, 1e-3 if faster else 1.99e-3])
    model = load(export(tmp_path, Images(), (8, 3, 8, 8)))
    assert model.way == ("kernel replay, 1 convolution and 2 dense layers fused" if faster else "kernel replay")
    assert model.session_options.get("fuse") == ("1;2;4;8" if faster else None)


def test_short_runs_are_timed_together():
    class Counted:
        runs: list[int]

        def __init__(self) -> None:
            self.runs = []

        def repeat(self, inputs: Any, runs: int) -> None:
            self.runs.append(runs)

    sessions: Any = (Counted(), Counted())
    assert fusion._best_runs(sessions, [], kernel_threads=1) is not None
    for session in sessions:
        assert (session.runs[0], len(session.runs)) == (1, fusion.TRIAL_RUNS)
        assert 1 < session.runs[-1] <= fusion.MOST_REPEATS
