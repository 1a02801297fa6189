"""Exports the benchmarks' models beside copies of their servable_config.py.

usage: models.py FOLDER
"""

import shutil
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

BATCH = 32
BIG_SHAPE = (512, 1024)  # float32: 2 MiB
TOTAL_SHAPE = (1024, 1024)


class Add(nn.Cell):
    def construct(self, x1, x2):
        return x1 + x2


class Total(nn.Cell):
    def __init__(self):
        super().__init__()
        self.total = ops.ReduceSum(keep_dims=True)

    def construct(self, x):
        return self.total(x)


def main(folder: Path) -> None:
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(Path(__file__).parent / "servables", folder, ignore=shutil.ignore_patterns("__pycache__"))
    exports = {
        "add": (Add(), [(2, 2)] * 2),
        "addb": (Add(), [(BATCH, 2, 2)] * 2),
        "big": (Add(), [BIG_SHAPE] * 2),
        "total": (Total(), [TOTAL_SHAPE]),
    }
    exports["heavy"] = exports["addb"]
    for name, (net, shapes) in exports.items():
        version = folder / name / "1"
        version.mkdir()
        inputs = [ms.Tensor(np.zeros(shape, np.float32)) for shape in shapes]
        file = "addb" if name == "heavy" else name
        ms.export(net, *inputs, file_name=str(version / f"{file}.mindir"), file_format="MINDIR")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
