"""How one servable is to be started."""

from __future__ import annotations

from typing import Any, overload

from mindspore_serving.server import _checks

MAX_PARALLEL_WORKERS = 64
DEVICE_TYPES = ("Ascend", "GPU", "CPU")

_Devices = int | list[int] | tuple[int, ...]


class ServableStartConfig:
    """Says which servable to start, from where, on which devices.

    Releases up to 1.4 and later releases differ in what their sixth positional parameter is: `dec_key`, or
    `num_parallel_workers` with `dec_key` after it. Both work here: bytes or None there is the key, an int the number
    of workers.

    Args:
        servable_directory (str): The directory that holds the servable's directory, absolute or relative to the
            current working directory.
        servable_name (str): The servable's name, which is its directory's name.
        device_ids (Union[int, list[int], tuple[int]], optional): The devices the servable is loaded into, one copy
            each. None: one copy on device 0. Default: None.
        version_number (int, optional): The version to load, 1 or larger; 0 means the newest there is. Default: 0.
        device_type (str, optional): "Ascend", "GPU" or "CPU" in any spelling of upper and lower case; None takes what
            the installed MindSpore runs on. Default: None.
        num_parallel_workers (int, optional): The number of worker processes, at most 64. When it is larger than the
            number of devices, the additional ones run the Python stages of the servable's methods and leave the
            models to the workers that have a device: the models are loaded no more often. A servable whose methods
            are models alone gets no additional workers. Default: 0.
        dec_key (bytes, optional): The key that decrypts the model: 16, 24 or 32 bytes. Default: None.
        dec_mode (str, optional): How the model is encrypted: "AES-GCM" or "AES-CBC". Used with `dec_key` only.
            Default: "AES-GCM".

    Raises:
        RuntimeError: The type or value of a parameter is invalid.

    Examples:
        >>> import os
        >>> from mindspore_serving import server
        >>>
        >>> servable_dir = os.path.abspath(".")
        >>> resnet = server.ServableStartConfig(servable_dir, "resnet", device_ids=(0, 1))
        >>> server.start_servables(resnet)
    """

    @overload
    def __init__(
        self,
        servable_directory: str,
        servable_name: str,
        device_ids: _Devices | None = None,
        version_number: int = 0,
        device_type: str | None = None,
        dec_key: bytes | None = None,
        dec_mode: str = "AES-GCM",
        *,
        num_parallel_workers: int = 0,
    ) -> None: ...

    @overload
    def __init__(
        self,
        servable_directory: str,
        servable_name: str,
        device_ids: _Devices | None = None,
        version_number: int = 0,
        device_type: str | None = None,
        num_parallel_workers: int = 0,
        dec_key: bytes | None = None,
        dec_mode: str = "AES-GCM",
    ) -> None: ...

    def __init__(
        self,
        servable_directory: str,
        servable_name: str,
        device_ids: _Devices | None = None,
        version_number: int = 0,
        device_type: str | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        num_parallel_workers, dec_key, dec_mode = _bind_tail(args, kwargs)
        self.servable_directory: str = _checks.check_str("servable_directory", servable_directory)
        self.servable_name: str = _check_servable_name(servable_name)
        self.device_ids: tuple[int, ...] = () if device_ids is None else _checks.check_indexes("device_ids", device_ids)
        self.version_number: int = _checks.check_int("version_number", version_number)
        self.device_type: str | None = _check_device_type(device_type)
        self.num_parallel_workers: int = _checks.check_int(
            "num_parallel_workers", num_parallel_workers, 0, MAX_PARALLEL_WORKERS
        )
        self.dec_key: bytes | None
        self.dec_mode: str
        self.dec_key, self.dec_mode = _checks.check_decryption(dec_key, dec_mode)

    def __repr__(self) -> str:
        key = "None" if self.dec_key is None else "<hidden>"
        return (
            f"ServableStartConfig({self.servable_directory!r}, {self.servable_name!r}, device_ids={self.device_ids}, "
            f"version_number={self.version_number}, device_type={self.device_type!r}, "
            f"num_parallel_workers={self.num_parallel_workers}, dec_key={key}, dec_mode={self.dec_mode!r})"
        )


def _bind_tail(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[object, object, object]:
    """Bind what follows device_type, in either of the two positional orders."""
    newer = bool(args) and isinstance(args[0], int)
    names = ("num_parallel_workers", "dec_key", "dec_mode") if newer else ("dec_key", "dec_mode")
    if len(args) > len(names):
        raise TypeError(
            f"ServableStartConfig takes at most {5 + len(names)} positional arguments, but {5 + len(args)} were given"
        )
    bound: dict[str, object] = {"num_parallel_workers": 0, "dec_key": None, "dec_mode": "AES-GCM"}
    given = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name not in bound:
            raise TypeError(f"ServableStartConfig got an unexpected keyword argument '{name}'")
        if name in given:
            raise TypeError(f"ServableStartConfig got multiple values for argument '{name}'")
        given[name] = value
    bound.update(given)
    return bound["num_parallel_workers"], bound["dec_key"], bound["dec_mode"]


def _check_servable_name(value: object) -> str:
    name = _checks.check_str("servable_name", value)
    if name in (".", "..") or "/" in name or "\0" in name:
        raise RuntimeError(
            f"Parameter 'servable_name' should be the name of a directory in servable_directory, but {name!r} was given"
        )
    return name


def _check_device_type(value: object) -> str | None:
    if value is None:
        return None
    text = _checks.check_str("device_type", value)
    if text.lower() == "none":
        return None
    for known in DEVICE_TYPES:
        if text.lower() == known.lower():
            return known
    raise RuntimeError(f"Parameter 'device_type' should be 'Ascend', 'GPU', 'CPU' or None, but '{text}' was given")
