"""Exports the small models of the end-to-end tests: add.mindir, addb.mindir, wideb.mindir and plus100.mindir.

usage: export_models.py FOLDER
"""

import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

BATCH = 4


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
        ms.export(net, x, x, file_name=str(folder / f"{name}.mindir"), file_format="MINDIR")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
