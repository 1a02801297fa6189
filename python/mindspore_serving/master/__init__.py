"""Names of release 1.2. ``mindspore_serving.server`` has what replaces them."""

from __future__ import annotations

from mindspore_serving import server
from mindspore_serving.server import _legacy, _server

__all__ = ["start_grpc_server", "start_restful_server", "stop"]


def start_grpc_server(
    ip: str = "0.0.0.0",
    grpc_port: int = 5500,
    max_msg_mb_size: int = 100,
    ssl_config: server.SSLConfig | None = None,
) -> None:
    """Start the gRPC server: `server.start_grpc_server` with the address in two parts.

    Args:
        ip (str, optional): The address to listen on. Default: "0.0.0.0".
        grpc_port (int, optional): The port, 1 to 65535. Default: 5500.
        max_msg_mb_size (int, optional): The largest message taken or sent, in MiB, 1 to 512. Default: 100.
        ssl_config (SSLConfig, optional): How connections are encrypted; None means not at all. Default: None.

    Raises:
        RuntimeError: As `server.start_grpc_server`.
    """
    _legacy.warn("master.start_grpc_server", "server.start_grpc_server")
    with _server.StopOnError():
        server.start_grpc_server(_legacy.join_address(ip, "grpc_port", grpc_port), max_msg_mb_size, ssl_config)


def start_restful_server(
    ip: str = "0.0.0.0",
    restful_port: int = 5900,
    max_msg_mb_size: int = 100,
    ssl_config: server.SSLConfig | None = None,
) -> None:
    """Start the RESTful server: `server.start_restful_server` with the address in two parts.

    Args:
        ip (str, optional): The address to listen on. Default: "0.0.0.0".
        restful_port (int, optional): The port, 1 to 65535. Default: 5900.
        max_msg_mb_size (int, optional): The largest request body taken, in MiB, 1 to 512. Default: 100.
        ssl_config (SSLConfig, optional): How connections are encrypted; None means not at all. Default: None.

    Raises:
        RuntimeError: As `server.start_restful_server`.
    """
    _legacy.warn("master.start_restful_server", "server.start_restful_server")
    with _server.StopOnError():
        server.start_restful_server(_legacy.join_address(ip, "restful_port", restful_port), max_msg_mb_size, ssl_config)


def stop() -> None:
    """Stop everything: `server.stop`."""
    _legacy.warn("master.stop", "server.stop")
    server.stop()
