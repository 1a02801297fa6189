"""Nets of MindSpore, exported and opened as a worker does: what tests of real models share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mindspore_serving.worker import _mindspore
from mindspore_serving.worker.agreement import random_inputs
from mindspore_serving.worker.mindspore_model import LoadedModel
from mindspore_serving.worker.session_library import Session, SessionLibrary

REPLAY, RUN, PYTHON = "kernel replay", "backend run", "python executor"
PAIR = (((2, 2), np.float32), ((2, 2), np.float32))

ms: Any = _mindspore.import_mindspore()
ms.set_device("CPU")
from mindspore import Tensor, nn, ops  # noqa: E402

Export = Callable[..., str]


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


class Softmaxes(nn.Cell):
    def construct(self, x):
        for _ in range(4):
            x = ops.exp(ops.softmax(x, -1))
        return x


def export_net(path: Path, net: Any, *inputs: tuple[tuple[int | None, ...], Any], **options: Any) -> str:
    """Exports a net for inputs of these types and shapes, e.g. ((4, 2), np.float32)."""
    tensors = [
        Tensor(shape=list(shape), dtype=getattr(ms, np.dtype(dtype).name))
        if None in shape
        else Tensor(np.zeros(shape, dtype))
        for shape, dtype in inputs
    ]
    net.set_train(False)
    if any(None in shape for shape, _ in inputs):
        net.set_inputs(*tensors)
    ms.export(net, *tensors, file_name=str(path), file_format="MINDIR", **options)
    return str(path)


def open_session(model: LoadedModel, **options: str) -> Session:
    assert model.session_library is not None
    return SessionLibrary(model.session_library).open({**model.session_options, **options})


def float_inputs(model: LoadedModel, rows: int = 4, seed: int = 7) -> list[np.ndarray]:
    return random_inputs(model.inputs, rows, seed)
