"""Just enough HTTP/2 to be rude with: frames, written by hand on a plain socket."""

import socket
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, CONTINUATION = 0, 1, 3, 4, 9
END_STREAM, END_HEADERS = 1, 4


def connect(address: str, timeout: float = 20) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=timeout)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """One header field, neither indexed nor Huffman-coded."""
    assert len(name) < 127
    return b"\x00" + bytes([len(name)]) + name + _length(len(value)) + value


def _length(value: int) -> bytes:
    if value < 127:
        return bytes([value])
    out, value = bytearray([127]), value - 127
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def predict_headers() -> bytes:
    return b"".join(
        literal(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/mindspore.serving.proto.MSService/Predict"),
            (b":authority", b"test"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )


def open_connection(address: str) -> socket.socket:
    """A connection past its greeting."""
    connection = connect(address)
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0))
    return connection


def is_closed(connection: socket.socket, timeout: float = 20) -> bool:
    """Reads until the other side closes; False if it does not within the time."""
    connection.settimeout(timeout)
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True
