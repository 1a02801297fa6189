"""Writes PredictRequest and PredictReply messages in ways that are legal but that no protobuf library chooses.

Everything random comes from the random.Random that is passed in, so a seed names a message.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

VARINT, FIXED64, BYTES, START_GROUP, END_GROUP, FIXED32 = range(6)
INPUT_NAMES = ("a", "b", "c")
# Item sizes by number of the wire's DataType.
ITEM_SIZES = {1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 4, 8: 8, 9: 8, 10: 2, 11: 4, 12: 8}
STRING, BYTES_TYPE = 13, 14


def varint(value: int, padding: int = 0) -> bytes:
    """`value` as a varint, made longer than needed by `padding` bytes."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80 or padding > 0:
        if value < 0x80:
            padding -= 1
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class OddEncoder:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    # Parts of any message ------------------------------------------------------------------------

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def number(self, value: int) -> bytes:
        size = len(varint(value))
        return varint(value, self.rng.randint(0, 10 - size) if self.chance(0.05) else 0)

    def tag(self, field: int, kind: int) -> bytes:
        size = len(varint(field << 3 | kind))
        return varint(field << 3 | kind, self.rng.randint(0, 5 - size) if self.chance(0.03) else 0)

    def delimited(self, field: int, content: bytes) -> bytes:
        size = len(varint(len(content)))
        length = varint(len(content), self.rng.randint(0, 5 - size) if self.chance(0.03) else 0)
        return self.tag(field, BYTES) + length + content

    def scalar(self, field: int, value: int) -> bytes:
        return self.tag(field, VARINT) + self.number(value)

    def unknown(self, depth: int = 0) -> bytes:
        """A field whose number no message of the wire uses, now or in another release."""
        field = self.rng.choice([15, 16, 99, 2047, 2048, (1 << 29) - 1])
        kind = self.rng.choice([VARINT, FIXED64, BYTES, START_GROUP, FIXED32])
        if kind == VARINT:
            return self.scalar(field, self.rng.getrandbits(self.rng.choice([3, 20, 64])))
        if kind == FIXED64:
            return self.tag(field, kind) + struct.pack("<Q", self.rng.getrandbits(64))
        if kind == FIXED32:
            return self.tag(field, kind) + struct.pack("<I", self.rng.getrandbits(32))
        if kind == BYTES:
            return self.delimited(field, self.rng.randbytes(self.rng.randint(0, 40)))
        inner = b"".join(self.unknown(depth + 1) for _ in range(self.rng.randint(0, 3 if depth < 4 else 0)))
        return self.tag(field, START_GROUP) + inner + self.tag(field, END_GROUP)

    def mistyped(self, field: int, kind: int) -> bytes:
        """A known field with a wire type that it cannot have: to be skipped like an unknown one."""
        other = self.rng.choice([k for k in (VARINT, FIXED64, BYTES, FIXED32) if k != kind])
        if other == VARINT:
            return self.scalar(field, 3)
        if other == BYTES:
            return self.delimited(field, b"\xff\xff")
        return self.tag(field, other) + bytes(8 if other == FIXED64 else 4)

    def joined(self, parts: list[bytes], shuffle: bool = False) -> bytes:
        """One message of these fields, with fields strewn in that mean nothing."""
        if shuffle:
            self.rng.shuffle(parts)
        out = []
        for part in parts:
            if self.chance(0.05):
                out.append(self.unknown())
            out.append(part)
        if self.chance(0.05):
            out.append(self.unknown())
        return b"".join(out)

    def split(self, field: int, parts: list[bytes]) -> bytes:
        """A message field, perhaps in several pieces that a reader has to merge."""
        pieces: list[list[bytes]] = [[]]
        for part in parts:
            if self.chance(0.1):
                pieces.append([])
            pieces[-1].append(part)
        return b"".join(self.delimited(field, self.joined(piece)) for piece in pieces)

    # Messages ------------------------------------------------------------------------------------

    def dims(self, dims: list[int]) -> list[bytes]:
        """Fields of a TensorShape: packed, one by one, or some of each."""
        parts, at = [], 0
        while at < len(dims):
            count = self.rng.randint(1, len(dims) - at)
            if self.chance(0.7):
                parts.append(self.delimited(1, b"".join(self.number(dim) for dim in dims[at : at + count])))
            else:
                parts.extend(self.scalar(1, dim) for dim in dims[at : at + count])
            at += count
        if self.chance(0.05):
            parts.append(self.delimited(1, b""))
        return parts

    def tensor(self, good: float = 0.97) -> list[bytes]:
        """Fields of a Tensor which keeps the rules of encoding with this probability, roughly."""
        rng = self.rng
        dtype = rng.choice([*ITEM_SIZES, STRING, BYTES_TYPE])
        parts: list[bytes] = []
        if dtype in ITEM_SIZES:
            dims = [rng.randint(1, 4) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 8]))]
            if dims and self.chance(0.1):
                dims[-1] = 0
            size = ITEM_SIZES[dtype]
            for dim in dims:
                size *= dim
        else:
            dims, size = rng.choice([[], [1]]), rng.randint(0, 20)
        if not self.chance(good):
            dims = rng.choice([[-1], [0, 2], [1 << 62, 4], [2, -3], [1] * 9, [*dims, 2], [1 << 63]])
        if not self.chance(good):
            size += rng.choice([1, 2, 8])
        if not self.chance(good):
            dtype = rng.choice([0, 15, 99, -1, 1 << 32, 1 << 31])
        if dims or self.chance(0.2):
            parts.append(self.split(1, self.dims(dims)))
        if self.chance(0.05):
            parts.append(self.scalar(2, rng.randint(0, 20)))
        parts.append(self.scalar(2, dtype))
        if dtype in (STRING, BYTES_TYPE):
            text = "".join(rng.choice("az ä€🍀") for _ in range(size)).encode()
            if not self.chance(good):
                text += b"\xff"
            parts.extend(self.delimited(4, text) for _ in range(1 if self.chance(good) else rng.choice([0, 2])))
            if self.chance(0.05):
                parts.append(self.delimited(3, b"not looked at"))
        else:
            if self.chance(0.05):
                parts.append(self.delimited(3, b"overridden"))
            if size > 0 or self.chance(0.5):
                parts.append(self.delimited(3, rng.randbytes(size)))
            if self.chance(0.05):
                parts.append(self.delimited(4, b"not looked at"))
        if self.chance(0.05):
            parts.insert(rng.randint(0, len(parts)), self.mistyped(3, BYTES))
        return parts

    def entry(self, name: str, tensor: list[bytes]) -> bytes:
        """An entry of an Instance's map."""
        key = [self.delimited(1, name.encode())]
        if self.chance(0.05):
            key.insert(0, self.delimited(1, b"another"))
        value = [self.split(2, tensor)]
        if self.chance(0.02):
            key = []
        if self.chance(0.02):
            value = []
        parts = key + value if self.chance(0.8) else value + key
        return self.delimited(1, self.joined(parts))

    def instance(self, names: tuple[str, ...], make: Callable[[], list[bytes]]) -> bytes:
        """Content of an Instance with these names, some perhaps twice, some perhaps missing."""
        parts = [self.entry(name, make()) for name in names if self.chance(0.99)]
        extra = self.rng.choice([0] * 9 + [1, 2])
        parts += [self.entry(self.rng.choice([*names, "extra", "größe", ""]), make()) for _ in range(extra)]
        return self.joined(parts, shuffle=self.chance(0.5))

    def spec(self) -> bytes:
        rng = self.rng
        parts = [self.delimited(1, rng.choice(["s", "größe", "", "n" * 200]).encode())]
        parts.append(self.delimited(2, rng.choice(["method", ""]).encode()))
        if self.chance(0.5):
            parts.append(self.scalar(3, rng.choice([0, 1, 300, (1 << 64) - 1])))
        if self.chance(0.1):
            parts.append(self.delimited(1, b"again" if self.chance(0.8) else b"\xc0\x80"))
        if self.chance(0.05):
            parts.append(self.mistyped(3, VARINT))
        rng.shuffle(parts)
        return self.split(1, parts)

    def request(self) -> bytes:
        parts = [self.spec()] if self.chance(0.98) else []
        count = self.rng.choice([0, 1, 1, 1, 2, 3, 5])
        parts += [self.delimited(2, self.instance(INPUT_NAMES, self.tensor)) for _ in range(count)]
        return self.joined(parts, shuffle=self.chance(0.2))

    def error(self) -> bytes:
        parts = [self.delimited(2, self.rng.choice([b"", b"text", b"\xff"]))]
        parts.append(self.scalar(1, self.rng.choice([0, 1, 5, -7])))
        return self.joined([part for part in parts if self.chance(0.9)], shuffle=True)

    def reply(self) -> bytes:
        parts = [self.spec()]
        instances, errors = self.rng.choice([0, 1, 2, 4]), self.rng.choice([0, 0, 1, 3])
        parts += [
            self.delimited(3, self.instance(("y", "z"), lambda: self.tensor(good=0.995))) for _ in range(instances)
        ]
        parts += [self.delimited(4, self.error()) for _ in range(errors)]
        return self.joined(parts, shuffle=self.chance(0.3))

    def damaged(self, message: bytes) -> bytes:
        """The message with a few bytes changed, removed, inserted or cut off."""
        out = bytearray(message)
        for _ in range(self.rng.choice([1, 1, 1, 2, 5])):
            if not out:
                break
            at = self.rng.randrange(len(out))
            match self.rng.randrange(5):
                case 0:
                    out[at] ^= 1 << self.rng.randrange(8)
                case 1:
                    out[at] = self.rng.choice([0, 1, 0x7F, 0x80, 0xFF])
                case 2:
                    del out[at : at + self.rng.randint(1, 4)]
                case 3:
                    out[at:at] = self.rng.randbytes(self.rng.randint(1, 4))
                case 4:
                    del out[at:]
        return bytes(out)
