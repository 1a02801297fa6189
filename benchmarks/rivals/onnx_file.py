"""Writes a network as an ONNX file with a free batch size. Input `x`, output `y`."""

import numpy as np

from rivals import wire
from rivals.networks import Conv, Dense, Flatten, MaxPool, Network, Relu, Residual, SpatialMean

_FLOAT = 1
_INT, _INTS = 2, 7  # AttributeProto's types
_IR_VERSION, _OPSET = 8, 13


def _attribute(name: str, value: int | list[int]) -> bytes:
    if isinstance(value, int):
        return wire.text(1, name) + wire.number(3, value) + wire.number(20, _INT)
    return wire.text(1, name) + b"".join(wire.number(8, one) for one in value) + wire.number(20, _INTS)


def _value(name: str, dims: list[int | str]) -> bytes:
    shape = b"".join(wire.text(1, wire.text(2, dim) if isinstance(dim, str) else wire.number(1, dim)) for dim in dims)
    return wire.text(1, name) + wire.text(2, wire.text(1, wire.number(1, _FLOAT) + wire.text(2, shape)))


class _Graph:
    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self.constants: list[bytes] = []

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.constants)}"
        dims = b"".join(wire.number(1, dim) for dim in array.shape)
        self.constants.append(dims + wire.number(2, _FLOAT) + wire.text(8, name) + wire.text(9, array.tobytes()))
        return name

    def node(self, op: str, inputs: list[str], **attributes: int | list[int]) -> str:
        output = f"t{len(self.nodes)}"
        parts = [wire.text(1, name) for name in inputs] + [wire.text(2, output), wire.text(4, op)]
        parts += [wire.text(5, _attribute(name, value)) for name, value in attributes.items()]
        self.nodes.append(b"".join(parts))
        return output

    def add(self, layers: list, x: str) -> str:
        for layer in layers:
            x = self._layer(layer, x)
        return x

    def _layer(self, layer: object, x: str) -> str:
        match layer:
            case Dense():
                return self.node("Gemm", [x, self.constant(layer.weight), self.constant(layer.bias)], transB=1)
            case Conv():
                kernel = list(layer.weight.shape[2:])
                inputs = [x, self.constant(layer.weight), self.constant(layer.bias)]
                pads, strides = [layer.padding] * 4, [layer.stride] * 2
                return self.node("Conv", inputs, kernel_shape=kernel, pads=pads, strides=strides)
            case MaxPool():
                end = layer.end_padding
                sizes = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2}
                return self.node("MaxPool", [x], pads=[0, 0, end, end], **sizes)
            case Relu():
                return self.node("Relu", [x])
            case Flatten():
                return self.node("Flatten", [x])
            case SpatialMean():
                return self.node("ReduceMean", [x], axes=[2, 3], keepdims=0)
            case Residual():
                return self.node("Add", [self.add(layer.body, x), self.add(layer.shortcut, x)])
        raise TypeError(f"{layer} has no ONNX form here")


def _model(name: str, graph: _Graph, last: str, inputs: list[bytes], output: bytes) -> bytes:
    graph.nodes.append(wire.text(1, last) + wire.text(2, "y") + wire.text(4, "Identity"))
    message = b"".join(wire.text(1, node) for node in graph.nodes) + wire.text(2, name)
    message += b"".join(wire.text(5, constant) for constant in graph.constants)
    message += b"".join(wire.text(11, value) for value in inputs) + wire.text(12, output)
    return wire.number(1, _IR_VERSION) + wire.text(7, message) + wire.text(8, wire.text(1, "") + wire.number(2, _OPSET))


def encode(network: Network) -> bytes:
    graph = _Graph()
    last = graph.add(network.layers, "x")
    outputs = next(layer.bias.size for layer in reversed(network.layers) if isinstance(layer, Dense))
    inputs = [_value("x", ["batch", *network.shape])]
    return _model(network.name, graph, last, inputs, _value("y", ["batch", outputs]))


def encode_sum(names: list[str], shape: tuple[int, ...]) -> bytes:
    """The sum of the inputs; of a single one and 1."""
    graph = _Graph()
    terms = names if len(names) > 1 else [*names, graph.constant(np.ones((1,), np.float32))]
    last = graph.node("Add", terms)
    return _model("sum", graph, last, [_value(name, [*shape]) for name in names], _value("y", [*shape]))
