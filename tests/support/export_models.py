"""Exports the small models of the end-to-end tests.

add, addb (batches of 4), plus100: sums of two 2x2 inputs. wideb: of two 100x200 inputs, in batches of 4. mulb: the
product of two 2x2 inputs, in batches of 4. scale: an input of shape [2] without batch dimension times one of shape
[4, 2]. rows: a sum with any number of rows. shapes: a sum of inputs of any two dimensions. secret: add, encrypted with
SECRET_KEY in mode AES-CBC.

usage: export_models.py FOLDER
"""

import sys
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

BATCH = 4
SECRET_KEY = b"a key of 24 bytes, no mo"


class Add(nn.Cell):
    """x1 + x2 + constant"""

    def __init__(self, constant: float = 0) -> None:
        super().__init__()
        self.constant = constant

    def construct(self, x1, x2):
        total = x1 + x2
        if self.constant:
            total = total + self.constant
        return total


class Multiply(nn.Cell):
    def construct(self, x1, x2):
        return x1 * x2


def main(folder: Path) -> None:
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    folder.mkdir(parents=True, exist_ok=True)
    for name, net, shape in (
        ("add", Add(), (2, 2)),
        ("addb", Add(), (BATCH, 2, 2)),
        ("wideb", Add(), (BATCH, 100, 200)),
        ("plus100", Add(100), (2, 2)),
    ):
        x = ms.Tensor(np.zeros(shape, np.float32))
        export(folder, name, net, x, x)
        if name == "add":
            export(folder, "secret", net, x, x, enc_key=SECRET_KEY, enc_mode="AES-CBC")
    export(folder, "mulb", Multiply(), *[ms.Tensor(np.zeros((BATCH, 2, 2), np.float32))] * 2)
    factor, rows = (ms.Tensor(np.zeros(shape, np.float32)) for shape in ((2,), (BATCH, 2)))
    export(folder, "scale", Multiply(), factor, rows)
    for name, shape in (("rows", [None, 2, 2]), ("shapes", [None, None])):
        net = Add()
        inputs = [ms.Tensor(shape=shape, dtype=ms.float32)] * 2
        net.set_inputs(*inputs)
        export(folder, name, net, *inputs)


def export(folder: Path, name: str, net: nn.Cell, *inputs: ms.Tensor, **options: Any) -> None:
    ms.export(net, *inputs, file_name=str(folder / f"{name}.mindir"), file_format="MINDIR", **options)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
