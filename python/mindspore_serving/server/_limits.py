"""Limits that one endpoint, the gRPC or the RESTful server, puts on its clients."""

from __future__ import annotations

from mindspore_serving.server import _checks

_MAX_SECONDS = 7 * 24 * 3600.0


class ServerLimits:
    """What a gRPC or RESTful server allows its clients. Whoever passes a limit is refused or cut off at once.

    Args:
        max_connections (int, optional): Connections at one time, 1 to 1000000. Over it a gRPC or TLS client is
            cut off, a REST client is answered 503. Default: 10000.
        max_streams_per_connection (int, optional): gRPC: calls in progress on one connection, 1 to 100000; a client
            waits before it starts another. Default: 1024.
        max_pipelined_requests (int, optional): REST: requests in progress on one connection, 1 to 10000; more are read
            when those are answered. Default: 64.
        max_header_bytes (int, optional): Headers of one request, 1024 to 1048576. Over it: RESOURCE_EXHAUSTED or 431.
            Default: 16384.
        request_timeout_seconds (float, optional): Time in which a request that has begun must have arrived, 0.01 s to a
            week; for a new connection its TLS handshake as well. Over it: DEADLINE_EXCEEDED, 408 or the connection's
            end. Default: 100.
        reply_timeout_seconds (float, optional): Time in which a client must have taken some bytes of what is sent to
            it, 0.01 s to a week; otherwise its connection ends. Default: 100.
        idle_timeout_seconds (float, optional): Time after which a connection without requests is closed, up to a week;
            0 means never, None means never for gRPC and 100 s for REST. Default: None.
        max_resets_per_second (int, optional): gRPC: calls that a client cancels, or that break, on one connection in
            the long run, 1 to 1000000. Four seconds' worth may come at once; over it the connection ends with
            ENHANCE_YOUR_CALM. Default: 1000.
        max_control_frames_per_second (int, optional): gRPC: pings, settings, priorities and empty frames on one
            connection in the long run, 1 to 1000000. Ten seconds' worth may come at once, and replies allow for more;
            over it the connection ends with ENHANCE_YOUR_CALM. Default: 100.
        connection_bytes_share (float, optional): The part of the bytes in flight (set_max_bytes_in_flight) that one
            connection may hold with its requests and with replies that it has not read, 0.001 to 1. Over it new
            requests of that connection are refused (RESOURCE_EXHAUSTED), or read later (REST); a single message may
            be larger. Default: 0.25.

    Raises:
        RuntimeError: The type or value of a parameter is invalid.

    Examples:
        >>> from mindspore_serving import server
        >>>
        >>> limits = server.ServerLimits(max_connections=200, request_timeout_seconds=10)
        >>> server.start_grpc_server("127.0.0.1:5500", limits=limits)
    """

    def __init__(
        self,
        *,
        max_connections: int = 10_000,
        max_streams_per_connection: int = 1024,
        max_pipelined_requests: int = 64,
        max_header_bytes: int = 16_384,
        request_timeout_seconds: float = 100.0,
        reply_timeout_seconds: float = 100.0,
        idle_timeout_seconds: float | None = None,
        max_resets_per_second: int = 1000,
        max_control_frames_per_second: int = 100,
        connection_bytes_share: float = 0.25,
    ) -> None:
        check_int, check_seconds = _checks.check_int, _checks.check_seconds
        self.max_connections: int = check_int("max_connections", max_connections, 1, 1_000_000)
        self.max_streams_per_connection: int = check_int(
            "max_streams_per_connection", max_streams_per_connection, 1, 100_000
        )
        self.max_pipelined_requests: int = check_int("max_pipelined_requests", max_pipelined_requests, 1, 10_000)
        self.max_header_bytes: int = check_int("max_header_bytes", max_header_bytes, 1024, 1 << 20)
        self.request_timeout_seconds: float = check_seconds(
            "request_timeout_seconds", request_timeout_seconds, 0.01, _MAX_SECONDS
        )
        self.reply_timeout_seconds: float = check_seconds(
            "reply_timeout_seconds", reply_timeout_seconds, 0.01, _MAX_SECONDS
        )
        self.idle_timeout_seconds: float | None = None
        if idle_timeout_seconds is not None:
            self.idle_timeout_seconds = check_seconds("idle_timeout_seconds", idle_timeout_seconds, 0, _MAX_SECONDS)
        self.max_resets_per_second: int = check_int("max_resets_per_second", max_resets_per_second, 1, 1_000_000)
        self.max_control_frames_per_second: int = check_int(
            "max_control_frames_per_second", max_control_frames_per_second, 1, 1_000_000
        )
        self.connection_bytes_share: float = _checks.check_number(
            "connection_bytes_share", connection_bytes_share, 0.001, 1
        )

    def __repr__(self) -> str:
        return f"ServerLimits({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


def native_limits(limits: ServerLimits | None) -> dict[str, float]:
    """The limits by name, as the native server takes them; what is left out has its default there."""
    return {name: value for name, value in vars(limits or ServerLimits()).items() if value is not None}
