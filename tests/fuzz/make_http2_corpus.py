"""Writes the seeds of http2_fuzz: python tests/fuzz/make_http2_corpus.py"""

import gzip
import struct
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus" / "http2"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, PADDED = 1, 4, 8


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: str, value: str) -> bytes:
    return bytes([0x40, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def head(path: str, *extra: tuple[str, str], method: bytes = b"\x83") -> bytes:
    """A header block: POST, http, an authority, the path, and what gRPC wants."""
    block = method + b"\x86\x41\x01a" + bytes([0x44, len(path)]) + path.encode()
    for name, value in (("content-type", "application/grpc"), ("te", "trailers"), *extra):
        block += literal(name, value)
    return block


def message(data: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(data)) + data


def call(stream: int, path: str, body: bytes, *extra: tuple[str, str]) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, head(path, *extra)) + frame(DATA, END_STREAM, stream, body)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    gzip_headers = (("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip"))
    packed = gzip.compress(b"z" * 500, mtime=0)
    block = head("/e")
    seeds = {
        "echo": call(1, "/e", message(b"hello")),
        "two_calls": call(1, "/e", message(b"a")) + call(3, "/s", message(b"b")),
        "held": call(1, "/h", message(b"x")) + frame(PING, 0, 0, b"12345678"),
        "held_and_reset": call(1, "/h", message(b"x")) + frame(RST_STREAM, 0, 1, b"\0\0\0\x08"),
        "deadline": call(1, "/h", message(b"x"), ("grpc-timeout", "100m")),
        "gzip": call(1, "/e", message(packed, 1), *gzip_headers),
        "gzip_broken": call(1, "/e", message(packed[:-5], 1), *gzip_headers),
        "unknown_method": call(1, "/none", message(b"x")),
        "get": frame(HEADERS, END_HEADERS | END_STREAM, 1, head("/e", method=b"\x82")),
        "too_large": call(1, "/e", b"\0\xff\xff\xff\xff"),
        "two_messages": call(1, "/e", message(b"a") + message(b"b")),
        "cut_short": call(1, "/e", message(b"abcdef")[:7]),
        "padded": frame(HEADERS, END_HEADERS, 1, block)
        + frame(DATA, END_STREAM | PADDED, 1, b"\x02" + message(b"p") + b"\0\0"),
        "continuation": frame(HEADERS, 0, 1, block[:9])
        + frame(CONTINUATION, END_HEADERS, 1, block[9:])
        + frame(DATA, END_STREAM, 1, message(b"c")),
        "trailers": frame(HEADERS, END_HEADERS, 1, block)
        + frame(DATA, 0, 1, message(b"t"))
        + frame(HEADERS, END_HEADERS | END_STREAM, 1, literal("x", "y")),
        "windows": frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0))
        + call(1, "/s", message(b"w"))
        + frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 50))
        + frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 100_000)),
        "goaway": call(1, "/h", message(b"x")) + frame(GOAWAY, 0, 0, bytes(8)),
    }
    for number, (name, data) in enumerate(seeds.items()):
        how = 1 | (number % 8) << 1 | (number % 3 == 0) << 4 | (number % 2) << 5
        (FOLDER / name).write_bytes(bytes([how]) + data)
    (FOLDER / "not_http2").write_bytes(b"\x0cGET / HTTP/1.1\r\n\r\n")
    (FOLDER / "large_pieces").write_bytes(b"\x2f" + b"".join(call(n, "/s", message(b"m" * n)) for n in range(1, 40, 2)))


if __name__ == "__main__":
    main()
