"""Writes root/1/{start,step,error}.mindir: the three graphs of Newton's method for square roots, in batches of 8."""

import os

import mindspore as ms
import numpy as np
from mindspore import nn, ops

BATCH = 8


class Start(nn.Cell):
    """The first guess."""

    def construct(self, x):
        return (x + 1) * 0.5


class Step(nn.Cell):
    """A better guess."""

    def construct(self, y, x):
        return (y + x / y) * 0.5


class Error(nn.Cell):
    """How far off a guess is."""

    def construct(self, y, x):
        return ops.abs(y * y - x)


def main():
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    version_dir = os.path.join(os.path.dirname(os.path.abspath(__file__)), "root", "1")
    os.makedirs(version_dir, exist_ok=True)
    x = ms.Tensor(np.ones((BATCH, 4), np.float32))
    for name, net, inputs in (("start", Start(), (x,)), ("step", Step(), (x, x)), ("error", Error(), (x, x))):
        path = os.path.join(version_dir, f"{name}.mindir")
        ms.export(net, *inputs, file_name=path, file_format="MINDIR")
        print("Exported", path)


if __name__ == "__main__":
    main()
