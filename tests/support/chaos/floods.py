"""What rude clients do. Polite ones must not notice, but for a burst that fills the queue."""

import socket
import struct
import time
from collections.abc import Callable

import numpy as np

import raw_http2 as h2
from chaos.clients import PATIENCE
from chaos.ledger import ANYTHING, NOT_CONNECTED, RIGHT, Ledger
from chaos.raw_client import PING, RawClient
from chaos.requests import decode, encode, judge, make_request
from chaos.world import MAX_REQUESTS

CANCEL = struct.pack(">I", 8)
TOO_LARGE = 9 << 20  # the server takes 8 MiB


class Floods:
    """One thread. A server that is not there at the moment ends a flood early."""

    def __init__(self, grpc_address: str, rest_address: str, ledger: Ledger, random: np.random.Generator) -> None:
        self._grpc, self._rest = grpc_address, rest_address
        self._ledger = ledger
        self._random = random

    def all(self) -> list[Callable[[], None]]:
        return [
            self.garbage,
            self.slow_clients,
            self.connection_storm,
            self.oversize,
            self.rapid_resets,
            self.control_frames,
            self.burst,
        ]

    def run(self, flood: Callable[[], None]) -> None:
        self._ledger.note(f"flood: {flood.__name__}")
        try:
            h2.connect(self._grpc).close()
        except ConnectionError:
            time.sleep(1)  # the server is down
            return
        try:
            flood()
        except (ConnectionError, TimeoutError) as error:
            self._ledger.note(f"flood {flood.__name__} ended: {error!r}")

    def garbage(self) -> None:
        for number in range(30):
            with h2.connect((self._grpc, self._rest)[number % 2]) as connection:
                try:
                    connection.sendall(self._random.bytes(int(self._random.integers(1, 20_000))))
                    if number % 3 == 0:
                        h2.is_closed(connection, 0.2)
                except ConnectionError:
                    continue
        for _ in range(20):
            with h2.open_connection(self._grpc) as connection:
                try:
                    for stream in range(4):
                        kind, flags = int(self._random.integers(0, 12)), int(self._random.integers(0, 256))
                        connection.sendall(h2.frame(kind, flags, stream, self._random.bytes(50)))
                except ConnectionError:
                    continue

    def slow_clients(self) -> None:
        """A byte at a time, and never the last one."""
        http1 = b'POST /model/plain:add HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n{"instances"'
        http2 = h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0) + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.predict_headers())
        slow = [(h2.connect(self._grpc), http2) for _ in range(25)] + [
            (h2.connect(self._rest), http1) for _ in range(25)
        ]
        try:
            for position in range(min(len(http1), len(http2)) - 1):
                for connection, text in slow:
                    connection.sendall(text[position : position + 1])
                time.sleep(0.02)
        finally:
            for connection, _ in slow:
                connection.close()

    def connection_storm(self) -> None:
        for _ in range(3):
            opened = []
            for number in range(200):
                opened.append(h2.connect((self._grpc, self._rest)[number % 2]))
                if number % 4 == 0:  # ends with a reset instead of a farewell
                    opened[-1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for connection in opened:
                connection.close()

    def oversize(self) -> None:
        for _ in range(3):
            client = RawClient(self._grpc, PATIENCE)
            kind, _raw = client.call([bytes(TOO_LARGE)])[0]
            client.close()
            # gRPC's status for a message over the limit is the same as for a full queue. This client has no regard for
            # flow control, so its stream may be reset before (3).
            assert kind in ("overloaded", "connection_lost", "reset 3", NOT_CONNECTED), (
                f"a message over the limit: {kind}"
            )
            with h2.connect(self._rest) as connection:
                head = f"POST /model/plain:add HTTP/1.1\r\nHost: test\r\nContent-Length: {TOO_LARGE}\r\n\r\n"
                connection.sendall(head.encode())
                answer = connection.recv(4096)
                assert not answer or b" 413 " in answer, answer

    def rapid_resets(self) -> None:
        """What was taken and then reset is dropped by the workers, but waits in the queue until they come to it."""
        message = encode(make_request(self._random))
        body = struct.pack(">BI", 0, len(message)) + message
        for _ in range(3):
            with (
                self._ledger.window("rapid resets", ANYTHING, "overloaded"),
                h2.open_connection(self._grpc) as connection,
            ):
                for start in range(1, 4001, 200):
                    out = bytearray()
                    for stream in range(start, start + 200, 2):
                        out += h2.frame(h2.HEADERS, h2.END_HEADERS, stream, h2.predict_headers())
                        out += h2.frame(h2.DATA, h2.END_STREAM, stream, body) if stream % 4 == 1 else b""
                        out += h2.frame(h2.RST_STREAM, 0, stream, CANCEL)
                    connection.sendall(out)

    def control_frames(self) -> None:
        with h2.open_connection(self._grpc) as connection:
            for _ in range(50):
                connection.sendall(h2.frame(PING, 0, 0, b"floodpng") * 100)
        with h2.open_connection(self._grpc) as connection:
            for _ in range(50):
                connection.sendall(h2.frame(h2.SETTINGS, 0, 0) * 100)

    def burst(self) -> None:
        """More requests at once than may wait: each is answered, right or with the reason why not."""
        requests = [make_request(self._random) for _ in range(2 * MAX_REQUESTS)]
        with self._ledger.window(f"burst of {len(requests)} requests", ANYTHING, "overloaded"):
            client = RawClient(self._grpc, PATIENCE)
            sent = self._ledger.now()
            outcomes = client.call([encode(request) for request in requests])
            for request, (kind, raw) in zip(requests, outcomes, strict=True):
                text = ""
                if kind == RIGHT:
                    kind, text = judge(request, decode(raw))
                self._ledger.record("burst", request.servable, sent, kind, text or raw[:200].decode(errors="replace"))
            client.close()
