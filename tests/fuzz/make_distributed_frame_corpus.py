"""Writes the seeds of distributed_frame_fuzz: well-formed frames, and what breaks the rules."""

import struct
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus" / "distributed_frame"
CLAIM, REGISTER, RUN, DONE, PING = 3, 7, 12, 13, 16
FLOAT32 = 11


def frame(kind: int, body: bytes) -> bytes:
    return struct.pack("<IB3x", len(body), kind) + body


def text(value: str) -> bytes:
    return struct.pack("<I", len(value)) + value.encode()


def info(name: str, *dims: int) -> bytes:
    return text(name) + struct.pack("<BB", FLOAT32, len(dims) + 1) + struct.pack(f"<{len(dims)}q", *dims)


def padded(head: bytes, *tensors: bytes) -> bytes:
    body = head
    for tensor in tensors:
        body += bytes(-len(body) % 64) + tensor
    return body + bytes(-len(body) % 64)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    model = text("m.mindir") + text("kernel replay") + struct.pack("<I", 1) + info("x", 4, -1)
    model += struct.pack("<I", 1) + info("y", 4) + struct.pack("<I2q", 2, 1, 4)
    shape = struct.pack("<IBB2q", 1, FLOAT32, 2, 2, 2)
    run = padded(struct.pack("<QIB", 7, 0, 1) + shape, bytes(16))
    done = padded(struct.pack("<QBB", 7, 0, 1) + text("") + shape, bytes(16))
    seeds = {
        "register": frame(REGISTER, struct.pack("<I", 1) + model),
        "run": frame(RUN, run),
        "done": frame(DONE, done),
        "failed": frame(DONE, struct.pack("<QBB", 7, 1, 0) + text("why") + struct.pack("<I", 0)),
        "claim": frame(CLAIM, text("host") + text("host:7000") + struct.pack("<3I", 2, 0, 1)),
        "several": frame(PING, b"") + frame(RUN, run) + frame(PING, b""),
        "too_large": struct.pack("<IB3x", 0xFFFFFFFF, RUN),
        "huge_tensor": frame(
            RUN, struct.pack("<QIB", 7, 0, 1) + struct.pack("<IBB2q", 1, FLOAT32, 2, 1 << 40, 1 << 40)
        ),
        "no_frame": b"GET / HTTP/1.1\r\n\r\n",
    }
    for name, content in seeds.items():
        (FOLDER / name).write_bytes(b"\0" + content)
        (FOLDER / f"{name}_cut").write_bytes(b"\5" + content)


if __name__ == "__main__":
    main()
