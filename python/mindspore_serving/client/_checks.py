"""Checks of the client's parameters. A bad one raises RuntimeError with its name, its value and what is allowed."""

from __future__ import annotations


def check_str(name: str, value: object) -> None:
    """Raises RuntimeError unless `value` is a str that is not empty."""
    if not isinstance(value, str):
        raise RuntimeError(f"Parameter '{name}' should be str, but {value!r} of {type(value)} was given")
    if not value:
        raise RuntimeError(f"Parameter '{name}' should not be empty str")


def check_version(name: str, value: object) -> None:
    """Raises RuntimeError unless `value` is an int (no bool) that fits the wire's uint64."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise RuntimeError(f"Parameter '{name}' should be int, but {value!r} of {type(value)} was given")
    if value < 0:
        raise RuntimeError(f"Parameter '{name}' should be >= 0, but {value} was given")
    if value >= 1 << 64:
        raise RuntimeError(f"Parameter '{name}' should be < 2**64, but {value} was given")
