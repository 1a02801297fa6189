"""Writes add_sub/1/add.mindir (x1 + x2) and add_sub/1/sub.mindir (x1 - x2): 2x2 float32 matrices, batches of 4."""

import os

import mindspore as ms
import numpy as np
from mindspore import nn


class Add(nn.Cell):
    def construct(self, x1, x2):
        return x1 + x2


class Sub(nn.Cell):
    def construct(self, x1, x2):
        return x1 - x2


def main():
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    version_dir = os.path.join(os.path.dirname(os.path.abspath(__file__)), "add_sub", "1")
    os.makedirs(version_dir, exist_ok=True)
    x = ms.Tensor(np.ones((4, 2, 2), np.float32))
    for name, net in (("add", Add()), ("sub", Sub())):
        path = os.path.join(version_dir, f"{name}.mindir")
        ms.export(net, x, x, file_name=path, file_format="MINDIR")
        print("Exported", path)


if __name__ == "__main__":
    main()
