"""The networks as plain lists of layers with random weights: MindSpore's and ONNX's files are made from the same list,
so that every server multiplies the same numbers."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np


@dataclass
class Dense:
    weight: np.ndarray  # [out, in]
    bias: np.ndarray


@dataclass
class Conv:
    """With its batch normalisation folded in."""

    weight: np.ndarray  # [out, in, kernel, kernel]
    bias: np.ndarray
    stride: int
    padding: int


@dataclass
class MaxPool:
    kernel: int
    stride: int
    end_padding: int = 0  # rows and columns after the last one


@dataclass
class Relu:
    pass


@dataclass
class Flatten:
    pass


@dataclass
class SpatialMean:
    pass


@dataclass
class Residual:
    body: list
    shortcut: list = field(default_factory=list)


@dataclass
class Network:
    name: str
    shape: tuple[int, ...]  # of one instance
    layers: list


class _Weights:
    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def dense(self, inputs: int, outputs: int) -> Dense:
        return Dense(self._normal((outputs, inputs), inputs), self._normal((outputs,), 100))

    def conv(self, inputs: int, outputs: int, kernel: int, stride: int = 1, gain: float = 1) -> Conv:
        weight = self._normal((outputs, inputs, kernel, kernel), inputs * kernel * kernel) * np.float32(gain)
        return Conv(weight, self._normal((outputs,), 100), stride, kernel // 2)

    def _normal(self, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
        return (self._random.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)


def _bottleneck(weights: _Weights, inputs: int, width: int, stride: int) -> list:
    outputs = 4 * width
    body = [
        weights.conv(inputs, width, 1), Relu(),
        weights.conv(width, width, 3, stride), Relu(),
        weights.conv(width, outputs, 1, gain=0.3),
    ]  # fmt: skip
    return [Residual(body, [weights.conv(inputs, outputs, 1, stride)] if inputs != outputs else []), Relu()]


def _resnet50() -> list:
    weights = _Weights(3)
    layers: list = [weights.conv(3, 64, 7, 2), Relu(), MaxPool(3, 2, end_padding=1)]
    channels = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            layers += _bottleneck(weights, channels, width, stride if block == 0 else 1)
            channels = 4 * width
    return [*layers, SpatialMean(), weights.dense(channels, 1000)]


def _mlp(seed: int, *widths: int) -> list:
    weights = _Weights(seed)
    layers: list = []
    for inputs, outputs in pairwise(widths):
        layers += [weights.dense(inputs, outputs), Relu()]
    return layers[:-1]


def _lenet() -> list:
    weights = _Weights(2)
    return [
        weights.conv(1, 16, 3), Relu(), MaxPool(2, 2), weights.conv(16, 32, 3), Relu(), MaxPool(2, 2),
        Flatten(), weights.dense(32 * 2 * 2, 64), Relu(), weights.dense(64, 10),
    ]  # fmt: skip


def all_networks() -> list[Network]:
    return [
        Network("mlp", (784,), _mlp(1, 784, 512, 10)),
        Network("lenet", (1, 8, 8), _lenet()),
        Network("resnet50", (3, 224, 224), _resnet50()),
        Network("embed", (784,), [*_mlp(4, 784, 128), Relu()]),
        Network("mix", (128,), [*_mlp(5, 128, 128), Relu()]),
        Network("head", (128,), _mlp(6, 128, 10)),
    ]
