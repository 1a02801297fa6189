"""Stub of the Cython module."""

from collections.abc import Callable
from typing import Any

class ResultError(Exception): ...

class StageRunner:
    def __init__(self, servable_directory: str) -> None: ...
    def add(self, function: Callable[..., Any]) -> int: ...
    def capsule(self) -> object: ...

def name_of(function: object) -> str: ...
def describe_error(error: BaseException, function: object, directory: str) -> str: ...
def _testing(
    capsule: object,
    function: int,
    instances: list[list[Any]],
    outputs: int,
    *,
    batch_size: int = 0,
    write_back: list[bool] | None = None,
    no_memory_for: int = -1,
    times: int = 1,
) -> tuple[list[tuple[int, int, Any]], list[tuple[int, str]]]: ...
