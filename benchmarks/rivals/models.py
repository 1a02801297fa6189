"""Makes what all servers need of the works named: ONNX files, MindSpore's files, and the answers that are right.

usage: python -m rivals.models FOLDER WORK...

FOLDER/onnx/NAME.onnx, FOLDER/mindir/WORK-or-NETWORK.mindir, FOLDER/expected/WORK-INSTANCES.npz. Answers are computed by
MindSpore's own executor (networks) and NumPy (the rest), so that what onnxruntime says is checked by another.
"""

import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from rivals import onnx_file
from rivals.networks import Conv, Dense, Flatten, MaxPool, Relu, Residual, SpatialMean, all_networks

sys.path.insert(0, str(Path(__file__).parent / "shared"))

from rival_work import functions
from rival_work.works import WORKS, Work, random_inputs

INSTANCES = (1, 16)  # in a request; works without batching get one


class _Residual(nn.Cell):
    def __init__(self, body: nn.Cell, shortcut: nn.Cell | None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def construct(self, x):
        return self.body(x) + (x if self.shortcut is None else self.shortcut(x))


class _SpatialMean(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.mean = ops.ReduceMean(keep_dims=False)

    def construct(self, x):
        return self.mean(x, (2, 3))


def _cell(layer: object) -> nn.Cell:
    match layer:
        case Dense():
            outputs, inputs = layer.weight.shape
            return nn.Dense(inputs, outputs, ms.Tensor(layer.weight), ms.Tensor(layer.bias))
        case Conv():
            outputs, inputs, kernel, _ = layer.weight.shape
            return nn.Conv2d(
                inputs, outputs, kernel, layer.stride, pad_mode="pad", padding=layer.padding, has_bias=True,
                weight_init=ms.Tensor(layer.weight), bias_init=ms.Tensor(layer.bias),
            )  # fmt: skip
        case MaxPool():
            return nn.MaxPool2d(layer.kernel, layer.stride, pad_mode="same" if layer.end_padding else "valid")
        case Relu():
            return nn.ReLU()
        case Flatten():
            return nn.Flatten()
        case SpatialMean():
            return _SpatialMean()
        case Residual():
            return _Residual(_sequence(layer.body), _sequence(layer.shortcut) if layer.shortcut else None)
    raise TypeError(f"{layer} has no MindSpore form here")


def _sequence(layers: list) -> nn.Cell:
    return nn.SequentialCell(*map(_cell, layers))


class _Add(nn.Cell):
    def construct(self, x1, x2):
        return x1 + x2


class _PlusOne(nn.Cell):
    def construct(self, x):
        return x + 1.0


# Works that are one model of their own, and what they are exported for.
PLAIN = {
    "add": (_Add, [(2, 2)] * 2),
    "addb": (_Add, [(32, 2, 2)] * 2),
    "big": (_PlusOne, [(1024, 1024)]),
}


def _export(net: nn.Cell, shapes: list[tuple[int, ...]], path: Path) -> None:
    inputs = [ms.Tensor(np.zeros(shape, np.float32)) for shape in shapes]
    ms.export(net, *inputs, file_name=str(path), file_format="MINDIR")


def _write_expected(work: Work, folder: Path, cells: dict[str, nn.Cell]) -> None:
    def stage(name: str):
        if name in cells:
            return lambda x: [cells[name](ms.Tensor(x)).asnumpy()]
        return functions.stage(name)

    for instances in INSTANCES if work.max_batch > 1 else (1,):
        arrays = random_inputs(work, instances)
        for name in work.stages:
            arrays = stage(name)(*arrays)
        np.savez(folder / f"{work.name}-{instances}.npz", *arrays)


def main(folder: Path, works: list[Work]) -> None:
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    for name in ("onnx", "mindir", "expected"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    stages = {stage for work in works for stage in work.stages}
    cells = {}
    for network in all_networks():
        if network.name not in stages:
            continue
        cells[network.name] = _sequence(network.layers).set_train(False)
        (folder / "onnx" / f"{network.name}.onnx").write_bytes(onnx_file.encode(network))
        batch = 1 if network.name == "resnet50" else 32
        _export(cells[network.name], [(batch, *network.shape)], folder / "mindir" / f"{network.name}.mindir")
    for work in works:
        if work.name in PLAIN:
            net, shapes = PLAIN[work.name]
            _export(net(), shapes, folder / "mindir" / f"{work.name}.mindir")
            names = [tensor.name for tensor in work.inputs]
            (folder / "onnx" / f"{work.name}.onnx").write_bytes(onnx_file.encode_sum(names, shapes[0]))
        _write_expected(work, folder / "expected", cells)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [WORKS[name] for name in sys.argv[2:]])
