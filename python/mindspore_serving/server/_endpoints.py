"""The gRPC and the RESTful server of the process's one server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mindspore_serving.server import _checks, _server
from mindspore_serving.server._limits import ServerLimits, native_limits
from mindspore_serving.server._ssl import SSLConfig


@dataclass(frozen=True)
class _Endpoint:
    """What the servers of the two protocols differ in."""

    title: str
    start: str  # the public function
    native_start: str
    takes_unix: bool


_ENDPOINTS = {
    "grpc": _Endpoint("gRPC", "start_grpc_server", "start_grpc", True),
    "restful": _Endpoint("RESTful", "start_restful_server", "start_restful", False),
}


def start_grpc_server(
    address: str,
    max_msg_mb_size: int = 100,
    ssl_config: SSLConfig | None = None,
    *,
    limits: ServerLimits | None = None,
) -> None:
    """Start the gRPC server. Servables may be started before or after it.

    A script that starts no servables ends, and stops the server, after its last line.

    Args:
        address (str): ``ip:port``, or ``unix:path`` with the path of a Unix domain socket, whose directory must exist.
        max_msg_mb_size (int, optional): The largest message taken or sent, in MiB, 1 to 512. Default: 100.
        ssl_config (SSLConfig, optional): How connections are encrypted; None means not at all. Default: None.
        limits (ServerLimits, optional): Connections, time-outs and the like; None means the defaults. Default: None.

    Raises:
        RuntimeError: A parameter is invalid, the address cannot be listened on, or the server is already running.
            Everything that was running has been stopped.

    Examples:
        >>> from mindspore_serving import server
        >>>
        >>> server.start_grpc_server("0.0.0.0:5500")
    """
    _start_endpoint("grpc", address, max_msg_mb_size, ssl_config, limits)


def start_restful_server(
    address: str,
    max_msg_mb_size: int = 100,
    ssl_config: SSLConfig | None = None,
    *,
    limits: ServerLimits | None = None,
) -> None:
    """Start the RESTful server. Servables may be started before or after it.

    A script that starts no servables ends, and stops the server, after its last line.

    Args:
        address (str): ``ip:port``.
        max_msg_mb_size (int, optional): The largest request body taken, in MiB, 1 to 512. Default: 100.
        ssl_config (SSLConfig, optional): How connections are encrypted; None means not at all. Default: None.
        limits (ServerLimits, optional): Connections, time-outs and the like; None means the defaults. Default: None.

    Raises:
        RuntimeError: A parameter is invalid, the address cannot be listened on, or the server is already running.
            Everything that was running has been stopped.

    Examples:
        >>> from mindspore_serving import server
        >>>
        >>> server.start_restful_server("0.0.0.0:5900")
    """
    _start_endpoint("restful", address, max_msg_mb_size, ssl_config, limits)


def _start_endpoint(
    kind: str, address: str, max_msg_mb_size: int, ssl_config: SSLConfig | None, limits: ServerLimits | None
) -> None:
    endpoint = _ENDPOINTS[kind]
    with _server.StopOnError():
        _checks.check_str("address", address)
        if not address.startswith("unix:"):
            _checks.check_ip_address(address)
        elif endpoint.takes_unix:
            _check_unix_address(address)
        else:
            raise RuntimeError(
                f"The address '{address}' is illegal: the RESTful server takes ip:port only, no unix socket"
            )
        _checks.check_int("max_msg_mb_size", max_msg_mb_size, 1, 512)
        if ssl_config is not None and not isinstance(ssl_config, SSLConfig):
            raise RuntimeError(
                f"Parameter 'ssl_config' should be SSLConfig or None, but a {type(ssl_config).__name__} was given"
            )
        if limits is not None and not isinstance(limits, ServerLimits):
            raise RuntimeError(
                f"Parameter 'limits' should be ServerLimits or None, but a {type(limits).__name__} was given"
            )
        running = _server.get_running()
        if kind in running.started:
            raise RuntimeError(
                f"{endpoint.start} has been called already and is running: call stop() before starting again"
            )
        running.started.add(kind)
        start = getattr(running.native, endpoint.native_start)
        start(address, max_msg_mb_size, *_ssl_arguments(ssl_config), native_limits(limits))
        print(f"Serving {endpoint.title} server start success, listening on {address}", flush=True)


def _ssl_arguments(ssl_config: SSLConfig | None) -> tuple[str | None, str | None, str | None, bool]:
    if ssl_config is None:
        return None, None, None, False
    custom_ca = ssl_config.custom_ca if ssl_config.verify_client else None
    return ssl_config.certificate, ssl_config.private_key, custom_ca, ssl_config.verify_client


def _check_unix_address(address: str) -> None:
    path = address.removeprefix("unix:")
    if not path:
        raise RuntimeError(f"The address '{address}' is illegal: the path after 'unix:' is empty")
    directory = Path(path).absolute().parent
    if not directory.is_dir():
        raise RuntimeError(f"The address '{address}' is illegal: the directory '{directory}' does not exist")
