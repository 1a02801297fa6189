"""What arrives while the server says goodbye."""

import signal
import struct
import time

import numpy as np
import pytest

import raw_http2 as h2
from chaos.raw_client import ACK, GOAWAY, PING
from chaos.requests import Request, decode, encode
from servables import make_script, make_servable

CONFIG = """
from mindspore_serving.server import register


def twice(x):
    return x * 2


@register.register_method(output_names=["y"])
def double(x):
    return register.add_stage(twice, x, outputs_count=1)
"""
NO_LIMIT = (1 << 31) - 1


def read_frame(connection) -> tuple[int, int, bytes]:
    """Kind, stream and payload."""

    def read(count: int) -> bytes:
        parts = b""
        while len(parts) < count:
            part = connection.recv(count - len(parts))
            assert part, "closed by the server"
            parts += part
        return parts

    head = read(9)
    return head[3], int.from_bytes(head[5:], "big") & NO_LIMIT, read(int.from_bytes(head[:3], "big"))


def read_until(connection, wanted: int) -> bytes:
    while True:
        kind, _stream, payload = read_frame(connection)
        if kind == wanted:
            return payload


@pytest.mark.parametrize("attempt", range(3))
def test_RequestSentBeforeTheClientKnew_IsAnswered(tmp_path, start_server, attempt):
    """The first GOAWAY says that there will be an end; what is sent until the second one counts as taken. Until then
    the workers have to stay, however idle the server is."""
    make_servable(tmp_path, "python", CONFIG, {})
    server = start_server(make_script(tmp_path, ['"python"']))
    x = np.arange(3, dtype=np.float32)
    message = encode(Request("python", "double", [{"x": x}], []))
    with h2.open_connection(server.grpc_address) as connection:
        read_until(connection, h2.SETTINGS)  # the server has accepted it
        server.send_signal(signal.SIGTERM)
        seen: dict[int, bytes] = {}
        while not {GOAWAY, PING} <= seen.keys():
            kind, _stream, payload = read_frame(connection)
            seen[kind] = payload
        last = int.from_bytes(seen[GOAWAY][:4], "big")
        assert last == NO_LIMIT, "every stream is still taken"
        time.sleep(0.1 * attempt)  # the server has nothing to do meanwhile
        body = struct.pack(">BI", 0, len(message)) + message
        connection.sendall(
            h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.predict_headers()) + h2.frame(h2.DATA, h2.END_STREAM, 1, body)
        )
        connection.sendall(h2.frame(PING, ACK, 0, seen[PING]))
        answer = decode(read_until(connection, h2.DATA)[5:])
        assert answer.kind == "right", answer
        np.testing.assert_array_equal(answer.instances[0]["y"], x * 2)
    assert server.wait_exit(30) == 0
