"""What the names of release 1.2 have in common: they warn, and hand on to mindspore_serving.server."""

from __future__ import annotations

import warnings

from mindspore_serving.server import _checks


def warn(old: str, new: str) -> None:
    """Tell the caller of a release 1.2 function what replaces it.

    Args:
        old: The function's name in mindspore_serving.
        new: That of its replacement.
    """
    warnings.warn(
        f"mindspore_serving.{old} is a name of release 1.2; mindspore_serving.{new} replaces it",
        DeprecationWarning,
        stacklevel=3,
    )


def join_address(ip: object, port_name: str, port: object, ip_name: str = "ip") -> str:
    """``ip:port`` of the two parameters.

    Raises:
        RuntimeError: The ip is no str, or the port is out of range.
    """
    return f"{_checks.check_str(ip_name, ip)}:{_checks.check_int(port_name, port, 1, _checks.MAX_PORT)}"
