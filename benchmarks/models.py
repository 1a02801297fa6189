"""Exports the benchmarks' models beside copies of their servable_config.py.

usage: models.py FOLDER [--real]

With --real also the perceptron, LeNet and ResNet-50, which take a while.
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
RESNET_BATCH = 4
RESNET_EDGE = 64  # pixels; an image of 224 takes twelve times as long

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
sys.path += [str(EXAMPLES / "resnet50"), str(EXAMPLES / "digits")]
from export_model import ResNet50  # noqa: E402

from lenet import LeNet  # noqa: E402


class Add(nn.Cell):
    def construct(self, x1, x2):
        return x1 + x2


class Total(nn.Cell):
    def __init__(self):
        super().__init__()
        self.total = ops.ReduceSum(keep_dims=True)

    def construct(self, x):
        return self.total(x)


def export_with_sample(net: nn.Cell, name: str, shape: tuple[int, ...], folder: Path) -> None:
    """The model, and beside it one row that can be sent and what the model makes of it."""
    version = folder / name / "1"
    version.mkdir()
    batch = np.random.default_rng(1).random(shape, np.float32)
    y = net(ms.Tensor(batch)).asnumpy()
    np.savez(folder / name / "sample.npz", x=batch[0], y=y[0])
    ms.export(net, ms.Tensor(batch), file_name=str(version / f"{name}.mindir"), file_format="MINDIR")


def main(folder: Path, *, real: bool) -> None:
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
    if real:
        export_real(folder)


def export_real(folder: Path) -> None:
    ms.set_seed(1)
    perceptron = nn.SequentialCell(nn.Dense(784, 512), nn.ReLU(), nn.Dense(512, 10))
    export_with_sample(perceptron, "mlp", (BATCH, 784), folder)
    export_with_sample(LeNet(), "lenet", (BATCH, 1, 8, 8), folder)
    export_with_sample(ResNet50().set_train(False), "resnet50", (RESNET_BATCH, 3, RESNET_EDGE, RESNET_EDGE), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), real="--real" in sys.argv[2:])
