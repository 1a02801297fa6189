"""Reading a model file's signature: hostile bytes must end in a ValueError, whatever they are."""

import random

import pytest

from mindspore_serving.worker.mindir import MindIR, SizedCollective, parse_mindir
from mindspore_serving.worker.session_library import TensorInfo


def field(number: int, value: "int | bytes | str") -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value & ((1 << 64) - 1))
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def tensor(dtype: int, dims: list[int]) -> bytes:
    return b"".join(field(1, dim) for dim in dims) + field(2, dtype)


def model(inputs: list[tuple[str, bytes]], extra: bytes = b"") -> bytes:
    graph = field(3, b"w" * 1000) + field(6, field(1, "g:out:10"))
    graph += field(1, field(4, "REF::Conv2D:4")) + field(1, field(4, "Constant"))
    for name, info in inputs:
        graph += field(5, field(1, f"graph_1:{name}") + field(2, info))
    return field(1, "1.1") + field(2, "MindSpore") + field(7, graph) + extra


def parse(content: bytes) -> MindIR:
    return parse_mindir(memoryview(content))


def test_reads_inputs_outputs_and_operators():
    signature = parse(model([("x", tensor(1, [32, 3])), ("y", tensor(7, [-1])), ("z", tensor(10, []))]))
    assert signature.inputs == [
        TensorInfo("x", 11, (32, 3)),
        TensorInfo("y", 8, (-1,)),
        TensorInfo("z", 10, ()),
    ]
    assert signature.output_names == ["out"]
    assert signature.operators == {"Conv2D", "Constant"}
    assert signature.has_weights


def test_packed_dimensions_and_a_dynamic_rank():
    packed = field(1, varint(4) + varint(300)) + field(2, 1)
    assert parse(model([("x", packed)])).inputs == [TensorInfo("x", 11, (4, 300))]
    assert parse(model([("x", tensor(1, [-2]))])).inputs == [TensorInfo("x", 11, None)]


def test_operators_of_functions_are_found_among_the_primitives():
    primitive = field(12, field(1, "REF::AssignAdd:2") + field(2, "AssignAdd"))
    assert "AssignAdd" in parse(model([], primitive)).operators


def gather(name: int, op_type: int, attribute: int, *attributes: bytes) -> bytes:
    return (
        field(name, "5:AllGather") + field(op_type, "AllGather") + b"".join(field(attribute, one) for one in attributes)
    )


ATTRIBUTES = (
    field(1, "group") + field(16, 8) + field(5, "some_group"),
    field(1, "rank_size") + field(16, 7) + field(3, 4),
    field(1, "fusion") + field(16, 7) + field(3, 0),
)


@pytest.mark.parametrize("in_nodes", [False, True])
def test_collectives_tell_their_number_of_ranks(in_nodes):
    if in_nodes:
        graph = field(7, field(1, gather(3, 4, 5, *ATTRIBUTES)))
        content = field(2, "MindSpore") + graph
    else:
        content = model([], field(12, gather(1, 2, 3, *ATTRIBUTES)))
    assert parse(content).sized_collectives == [SizedCollective("5:AllGather", "AllGather", "some_group", 4)]


def test_a_collective_without_a_number_of_ranks_fits_all():
    assert parse(model([], field(12, gather(1, 2, 3, ATTRIBUTES[0])))).sized_collectives == []
    reduce = field(1, "AllReduce:3") + field(2, "AllReduce") + field(3, ATTRIBUTES[1])
    assert parse(model([], field(12, reduce))).sized_collectives == []


def test_an_input_that_cannot_be_served_is_named():
    with pytest.raises(ValueError, match="'x' has an element type"):
        parse(model([("x", tensor(8, [1]))]))
    with pytest.raises(ValueError, match="'x' has an element type"):
        parse(model([("x", tensor(99, [1]))]))
    graph = field(5, field(1, "g:pair") + field(2, tensor(1, [1])) + field(2, tensor(1, [1])))
    with pytest.raises(ValueError, match="'pair' is not a tensor"):
        parse(field(2, "MindSpore") + field(7, graph))


def test_other_files_are_no_mindir():
    for content in (b"", b"\0" * 100, b"\xff" * 100, b"PK\x03\x04 zip", field(2, "PyTorch") + field(7, b"")):
        with pytest.raises(ValueError, match="it is not a MindIR"):
            parse(content)


def test_damaged_files_never_raise_anything_else():
    good = model([("x", tensor(1, [32, 3])), ("y", tensor(7, [-1]))])
    generator = random.Random(5)
    for _ in range(3000):
        bad = bytearray(good)
        for _ in range(generator.randrange(1, 6)):
            bad[generator.randrange(len(bad))] = generator.randrange(256)
        try:
            parse(bytes(bad[: generator.randrange(len(bad) + 1)]))
        except ValueError:
            pass
