"""Stub of the Cython module."""

from typing import Any

def call_capsule(
    capsule: object,
    function: int,
    instances: list[list[Any]],
    outputs: int,
    *,
    batch_size: int = 0,
    write_back: list[bool] | None = None,
    no_memory_for: int = -1,
    times: int = 1,
    stacked: bool = False,
    chained: int = 1,
) -> tuple[list[tuple[int, int, Any]], list[tuple[int, str]]]: ...
