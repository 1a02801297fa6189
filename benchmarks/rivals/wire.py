"""Just enough of protobuf's wire form to write and read messages by field number: the servers' protocols need a handful
of fields, and ONNX files not many more."""

from collections.abc import Iterable, Iterator

_BYTES = 2


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def text(field: int, value: str | bytes) -> bytes:
    """A string, bytes or a message."""
    data = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | _BYTES) + varint(len(data)) + data


def packed(field: int, values: Iterable[int]) -> bytes:
    return text(field, b"".join(map(varint, values)))


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(message: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Each field with its number: varints and fixed ones as int, everything else as a view."""
    data = memoryview(message)
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = read_varint(data, at)
            yield key >> 3, value
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            yield key >> 3, int.from_bytes(data[at : at + size], "little")
            at += size
        elif kind == _BYTES:
            size, at = read_varint(data, at)
            if at + size > len(data):
                raise ValueError("a field is longer than its message")
            yield key >> 3, data[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {kind} is not read here")


def unpacked(data: memoryview) -> list[int]:
    values = []
    at = 0
    while at < len(data):
        value, at = read_varint(data, at)
        values.append(value)
    return values
