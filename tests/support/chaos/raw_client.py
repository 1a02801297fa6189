"""A gRPC client made of frames written by hand (raw_http2.py), with several requests in flight on its connection."""

import struct
from dataclasses import dataclass, field

import raw_http2 as h2
from chaos.ledger import CONNECTION_LOST, NOT_CONNECTED, RIGHT, UNANSWERED

PING, GOAWAY, WINDOW_UPDATE = 6, 7, 8
SETTINGS_HEADER_TABLE_SIZE, SETTINGS_INITIAL_WINDOW_SIZE = 1, 4
ACK = 1
REFUSED_STREAM = 7
# "grpc-status" in HPACK's Huffman code. Without a header table the server has to spell the name out each time.
GRPC_STATUS = bytes.fromhex("9acac8b21234da8f")
STATUS_KINDS = {b"8": "overloaded", b"1": "cancelled", b"14": NOT_CONNECTED}


@dataclass
class _Stream:
    body: bytearray = field(default_factory=bytearray)
    outcome: tuple[str, bytes] | None = None


class RawClient:
    """`over` is set once the connection can take no more requests."""

    def __init__(self, address: str, patience: float) -> None:
        self.over = False
        self._next = 1
        self._patience = patience
        self._socket = h2.connect(address, timeout=patience)
        settings = struct.pack(">HIHI", SETTINGS_HEADER_TABLE_SIZE, 0, SETTINGS_INITIAL_WINDOW_SIZE, (1 << 31) - 1)
        window = h2.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30))
        try:
            self._socket.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0, settings) + window)
        except ConnectionError:
            self.over = True

    def close(self) -> None:
        self._socket.close()

    def call(self, messages: list[bytes]) -> list[tuple[str, bytes]]:
        """Sends all, then waits for all: the kind of the outcome, and the reply's message or what the trouble was."""
        streams: dict[int, _Stream] = {}
        out = bytearray()
        for message in messages:
            body = struct.pack(">BI", 0, len(message)) + message
            out += h2.frame(h2.HEADERS, h2.END_HEADERS, self._next, h2.predict_headers())
            for start in range(0, len(body), 16384):
                last = start + 16384 >= len(body)
                out += h2.frame(h2.DATA, h2.END_STREAM if last else 0, self._next, body[start : start + 16384])
            streams[self._next] = _Stream()
            self._next += 2
        try:
            self._socket.sendall(out)
            while any(stream.outcome is None for stream in streams.values()):
                self._on_frame(streams)
        except TimeoutError:
            self._finish(streams, UNANSWERED, "no answer")
        except (ConnectionError, EOFError) as error:
            self._finish(streams, CONNECTION_LOST, repr(error))
        return [stream.outcome or (UNANSWERED, b"") for stream in streams.values()]

    def _finish(self, streams: dict[int, _Stream], kind: str, text: str) -> None:
        self.over = True
        for stream in streams.values():
            if stream.outcome is None:
                stream.outcome = kind, text.encode()

    def _on_frame(self, streams: dict[int, _Stream]) -> None:
        head = self._read(9)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        number = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        payload = self._read(length)
        stream = streams.get(number)
        if kind == h2.SETTINGS and not flags & ACK:
            self._socket.sendall(h2.frame(h2.SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self._socket.sendall(h2.frame(PING, ACK, 0, payload))
        elif kind == GOAWAY:
            self._on_goaway(streams, payload)
        elif kind == h2.DATA:
            if payload:
                self._socket.sendall(h2.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", length)))
            if stream is not None:
                stream.body += payload
        elif kind == h2.RST_STREAM and stream is not None and stream.outcome is None:
            code = int.from_bytes(payload, "big")
            refused = code == REFUSED_STREAM
            stream.outcome = NOT_CONNECTED if refused else f"reset {code}", f"RST_STREAM {code}".encode()
        elif kind == h2.HEADERS and flags & h2.END_STREAM and stream is not None:
            stream.outcome = self._end_of(stream, payload)

    def _on_goaway(self, streams: dict[int, _Stream], payload: bytes) -> None:
        """Streams above the last one were not taken: they may be sent again elsewhere."""
        self.over = True
        last, code = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF, int.from_bytes(payload[4:8], "big")
        for number, stream in streams.items():
            if number > last and stream.outcome is None:
                stream.outcome = NOT_CONNECTED, f"GOAWAY {code}, last stream {last}".encode()

    def _end_of(self, stream: _Stream, trailers: bytes) -> tuple[str, bytes]:
        at = trailers.rfind(GRPC_STATUS)
        value_at = at + len(GRPC_STATUS)
        status = trailers[value_at + 1 : value_at + 1 + trailers[value_at]] if at >= 0 else b"?"
        if status == b"0":
            return RIGHT, bytes(stream.body[5:])
        return STATUS_KINDS.get(status, f"status {status.decode(errors='replace')}"), trailers

    def _read(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self._socket.recv(count - len(parts))
            if not part:
                raise EOFError("closed by the server")
            parts += part
        return bytes(parts)
