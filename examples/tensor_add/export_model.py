"""Writes add/1/tensor_add.mindir: y = x1 + x2 over two 2x2 float32 matrices."""

import os

import mindspore as ms
import numpy as np
from mindspore import nn


class Add(nn.Cell):
    def construct(self, x1, x2):
        return x1 + x2


def main():
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    version_dir = os.path.join(os.path.dirname(os.path.abspath(__file__)), "add", "1")
    os.makedirs(version_dir, exist_ok=True)
    x = ms.Tensor(np.ones((2, 2), np.float32))
    path = os.path.join(version_dir, "tensor_add.mindir")
    ms.export(Add(), x, x, file_name=path, file_format="MINDIR")
    print("Exported", path)


if __name__ == "__main__":
    main()
