"""Checks of what users pass in. A refusal is a RuntimeError with the parameter, the value and what is legal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MAX_PORT = 65535


def check_str(name: str, value: object) -> str:
    """Return `value` if it is a non-empty str."""
    if not isinstance(value, str):
        raise RuntimeError(f"Parameter '{name}' should be str, but {_show(value)} was given")
    if not value:
        raise RuntimeError(f"Parameter '{name}' should not be empty str")
    return value


def check_bool(name: str, value: object) -> bool:
    """Return `value` if it is a bool; 0 and 1 are not."""
    if not isinstance(value, bool):
        raise RuntimeError(f"Parameter '{name}' should be bool, but {_show(value)} was given")
    return value


def check_int(name: str, value: object, minimum: int = 0, maximum: int | None = None) -> int:
    """Return `value` if it is an int (no bool) within the range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise RuntimeError(f"Parameter '{name}' should be int, but {_show(value)} was given")
    if maximum is None:
        if value < minimum:
            raise RuntimeError(f"Parameter '{name}' should be >= {minimum}, but {value} was given")
    elif not minimum <= value <= maximum:
        raise RuntimeError(f"Parameter '{name}' should be in range [{minimum}, {maximum}], but {value} was given")
    return value


def check_number(name: str, value: object, minimum: float, maximum: float, what: str = "int or float") -> float:
    """Return an int or float (no bool, no NaN) within the range, as a float; `what` is said to be expected."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RuntimeError(f"Parameter '{name}' should be {what}, but {_show(value)} was given")
    if not minimum <= value <= maximum:  # also for NaN
        raise RuntimeError(f"Parameter '{name}' should be in range [{minimum:g}, {maximum:g}], but {value} was given")
    return float(value)


def check_seconds(name: str, value: object, minimum: float, maximum: float) -> float:
    """Return a number of seconds within the range as a float."""
    return check_number(name, value, minimum, maximum, "a number of seconds")


def check_call_timeout(value: object) -> float | None:
    """Return `timeout_seconds` of a method or pipeline, a number of seconds or None."""
    return None if value is None else check_seconds("timeout_seconds", value, 0.001, 1e9)


def check_indexes(name: str, value: object) -> tuple[int, ...]:
    """Return an int, or a list or tuple of different ints, all >= 0, as a tuple."""
    values: Sequence[object]
    if isinstance(value, (list, tuple)):
        values = value
    elif isinstance(value, int) and not isinstance(value, bool):
        values = (value,)
    else:
        raise RuntimeError(f"Parameter '{name}' should be int, or list or tuple of int, but {_show(value)} was given")
    checked = tuple(check_int(f"{name}[{i}]" if len(values) > 1 else name, item) for i, item in enumerate(values))
    _check_unique(name, checked)
    return checked


def check_names(name: str, value: object) -> tuple[str, ...]:
    """Return a str, or a non-empty list or tuple of different str, as a tuple."""
    if isinstance(value, str):
        return (check_str(name, value),)
    if not isinstance(value, (list, tuple)):
        raise RuntimeError(f"Parameter '{name}' should be str, or list or tuple of str, but {_show(value)} was given")
    if not value:
        raise RuntimeError(f"Parameter '{name}' should not be empty: at least one name is needed")
    checked = tuple(check_str(f"{name}[{i}]", item) for i, item in enumerate(value))
    _check_unique(name, checked)
    return checked


def check_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Return `value` if it is one of `choices`."""
    text = check_str(name, value)
    if text not in choices:
        listed = ", ".join(f"'{choice}'" for choice in choices)
        raise RuntimeError(f"Parameter '{name}' should be one of {listed}, but '{text}' was given")
    return text


def check_decryption(dec_key: object, dec_mode: object) -> tuple[bytes | None, str]:
    """Return the key and the mode. The key's content never becomes part of a message."""
    if dec_key is not None:
        if not isinstance(dec_key, bytes):
            raise RuntimeError(f"Parameter 'dec_key' should be bytes, but a {type(dec_key).__name__} was given")
        if len(dec_key) not in (16, 24, 32):
            raise RuntimeError(
                f"Parameter 'dec_key' should have a length of 16, 24 or 32 bytes, but it has {len(dec_key)}"
            )
    return dec_key, check_choice("dec_mode", dec_mode, ("AES-GCM", "AES-CBC"))


def check_ip_address(address: str, name: str = "") -> tuple[str, int]:
    """Split `ip:port` at its last colon and check both parts; `name` is the parameter's, for messages."""
    what = f"Parameter '{name}': the address '{address}'" if name else f"The address '{address}'"
    host, colon, port_text = address.rpartition(":")
    if not colon:
        raise RuntimeError(f"{what} is illegal: ip and port should be separated by ':', as in ip:port")
    if not host:
        raise RuntimeError(f"{what} is illegal: the ip is missing before ':'")
    if not port_text:
        raise RuntimeError(f"{what} is illegal: the port is missing after ':'")
    if not (port_text.isascii() and port_text.isdigit()):
        raise RuntimeError(f"{what} is illegal: the port '{port_text}' is not a number")
    port = int(port_text)
    if not 1 <= port <= MAX_PORT:
        raise RuntimeError(f"{what} is illegal: port {port} is out of legal range [1 ~ {MAX_PORT}]")
    return host, port


def _check_unique(name: str, values: Iterable[object]) -> None:
    seen = set()
    for value in values:
        if value in seen:
            raise RuntimeError(f"Parameter '{name}' should have no repeated values, but {value!r} is there repeatedly")
        seen.add(value)


def _show(value: object) -> str:
    text = repr(value)
    if len(text) > 60:
        text = text[:57] + "..."
    return f"{text} ({type(value).__name__})"
