"""What a MindIR file says of its model without loading it: inputs, outputs, operators.

A MindIR is a protobuf message of which nearly all bytes are weights. Only the few fields of interest are walked, so
that a file of some hundred megabytes is read in milliseconds. Every length is checked: a file may be anything.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from mindspore_serving.worker.session_library import TensorInfo

Buffer = memoryview

# Field numbers of MindSpore's mind_ir.proto.
_MODEL_PRODUCER, _MODEL_GRAPH, _MODEL_PRIMITIVES = 2, 7, 12
_GRAPH_NODE, _GRAPH_PARAMETER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 3, 5, 6
_VALUE_NAME, _VALUE_TENSOR = 1, 2
_TENSOR_DIMS, _TENSOR_DTYPE = 1, 2
_NODE_NAME, _NODE_OP_TYPE, _NODE_ATTRIBUTE = 3, 4, 5
_PRIMITIVE_NAME, _PRIMITIVE_OP_TYPE, _PRIMITIVE_ATTRIBUTE = 1, 2, 3
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_STRING = 1, 3, 5

# Collectives whose result has another size than their input: MindSpore writes the number of ranks into the graph.
_SIZED_COLLECTIVES = {"AllGather", "ReduceScatter"}

# MindIR's element types as the wire's numbers.
_DTYPES = {1: 11, 2: 3, 3: 2, 4: 5, 5: 4, 6: 6, 7: 8, 9: 1, 10: 10, 11: 12, 12: 7, 13: 9, 17: 12}


@dataclass(frozen=True)
class SizedCollective:
    """An operator whose result depends on the number of ranks, which was fixed when the model was exported.

    Attributes:
        node: Its name in the file.
        operator: Such as "AllGather".
        group: The communication group.
        rank_size: How many ranks that had.
    """

    node: str
    operator: str
    group: str
    rank_size: int


@dataclass
class MindIR:
    """A model file's signature.

    Attributes:
        inputs: Its inputs, in order.
        output_names: The names of its outputs; fewer than outputs where MindSpore names a whole tuple.
        operators: The names of the operators in it.
        sized_collectives: Those of its collectives that fit one number of ranks only.
        has_weights: Whether it has parameters.
    """

    inputs: list[TensorInfo] = field(default_factory=list)
    output_names: list[str] = field(default_factory=list)
    operators: set[str] = field(default_factory=set)
    sized_collectives: list[SizedCollective] = field(default_factory=list)
    has_weights: bool = False


def parse_mindir(content: Buffer) -> MindIR:
    """Read a MindIR's signature.

    Args:
        content: The file's bytes, decrypted.

    Raises:
        ValueError: It is not a MindIR, or one of its inputs cannot be served.
    """
    model = MindIR()
    graph: Buffer | None = None
    producer = b""
    try:
        for number, value in _fields(content):
            if number == _MODEL_PRODUCER and isinstance(value, memoryview):
                producer = bytes(value)
            elif number == _MODEL_GRAPH and isinstance(value, memoryview):
                graph = value
            elif number == _MODEL_PRIMITIVES and isinstance(value, memoryview):
                model.operators.update(_strings(value, {_PRIMITIVE_NAME, _PRIMITIVE_OP_TYPE}))
                _read_collective(value, _PRIMITIVE_NAME, _PRIMITIVE_OP_TYPE, _PRIMITIVE_ATTRIBUTE, model)
    except ValueError as error:
        raise ValueError(f"it is not a MindIR ({error})") from error
    if graph is None or producer != b"MindSpore":
        raise ValueError("it is not a MindIR")
    _read_graph(graph, model)
    return model


def _read_graph(graph: Buffer, model: MindIR) -> None:
    names: list[str] = []
    tensors: list[list[Buffer]] = []
    for number, value in _fields(graph):
        if not isinstance(value, memoryview):
            continue
        if number == _GRAPH_NODE:
            model.operators.update(
                kind.removeprefix("REF::").partition(":")[0] for kind in _strings(value, {_NODE_OP_TYPE})
            )
            _read_collective(value, _NODE_NAME, _NODE_OP_TYPE, _NODE_ATTRIBUTE, model)
        elif number == _GRAPH_PARAMETER:
            model.has_weights = True
        elif number == _GRAPH_INPUT:
            names.append(_short_name(next(iter(_strings(value, {_VALUE_NAME})), "")))
            tensors.append(
                [part for inner, part in _fields(value) if inner == _VALUE_TENSOR and isinstance(part, memoryview)]
            )
        elif number == _GRAPH_OUTPUT:
            model.output_names.append(_short_name(next(iter(_strings(value, {_VALUE_NAME})), "")))
    for name, parts in zip(names, tensors, strict=True):
        if len(parts) != 1:
            raise ValueError(f"its input '{name}' is not a tensor")
        model.inputs.append(_tensor_info(name, parts[0]))


def _read_collective(message: Buffer, name: int, op_type: int, attribute: int, model: MindIR) -> None:
    """Of a node or a primitive, whichever has the attributes in files of this age."""
    operator = next(iter(_strings(message, {op_type})), "")
    if operator not in _SIZED_COLLECTIVES:
        return
    group, size = "", 0
    for number, value in _fields(message):
        if number == attribute and isinstance(value, memoryview):
            key = next(iter(_strings(value, {_ATTRIBUTE_NAME})), "")
            if key == "group":
                group = next(iter(_strings(value, {_ATTRIBUTE_STRING})), "")
            elif key == "rank_size":
                size = next((n for field, n in _fields(value) if field == _ATTRIBUTE_INT and isinstance(n, int)), 0)
    if size > 0:
        node = next(iter(_strings(message, {name})), operator)
        model.sized_collectives.append(SizedCollective(node, operator, group, size))


def _tensor_info(name: str, tensor: Buffer) -> TensorInfo:
    dims: list[int] = []
    dtype = 0
    for number, value in _fields(tensor):
        if number == _TENSOR_DTYPE and isinstance(value, int):
            dtype = value
        elif number == _TENSOR_DIMS:
            dims.extend([value] if isinstance(value, int) else _varints(value))
    if dtype not in _DTYPES:
        raise ValueError(f"its input '{name}' has an element type (number {dtype} in MindIR) that cannot be served")
    signed = [dim - (1 << 64) if dim >> 63 else dim for dim in dims]
    if -2 in signed:  # MindSpore's mark of a dynamic rank
        return TensorInfo(name, _DTYPES[dtype], None)
    return TensorInfo(name, _DTYPES[dtype], tuple(max(dim, -1) for dim in signed))


def _short_name(name: str) -> str:
    """'5_1_Net_construct:x' -> 'x': without the graph in front, and without the number of a node behind."""
    parts = name.split(":")
    if len(parts) > 2 and parts[-1].isdigit():
        parts.pop()
    return parts[-1]


def _strings(message: Buffer, numbers: set[int]) -> list[str]:
    return [
        bytes(value).decode(errors="replace")
        for number, value in _fields(message)
        if number in numbers and isinstance(value, memoryview)
    ]


def _varints(packed: Buffer) -> list[int]:
    values: list[int] = []
    position = 0
    while position < len(packed):
        value, position = _varint(packed, position)
        values.append(value)
    return values


def _varint(content: Buffer, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(content):
            break
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & ((1 << 64) - 1), position
    raise ValueError("a number is cut off")


def _fields(message: Buffer) -> Iterator[tuple[int, "Buffer | int"]]:
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == 2:
            size, position = _varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"unknown kind of field {kind}")
        if number == 0 or size > len(message) - position:
            raise ValueError("a field is longer than the file")
        yield number, message[position : position + size]
        position += size
