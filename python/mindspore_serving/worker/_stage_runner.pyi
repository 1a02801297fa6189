"""Stub of the Cython module."""

from collections.abc import Callable
from typing import Any

class StageRunner:
    holds: int
    def __init__(self, servable_directory: str) -> None: ...
    def add(self, function: Callable[..., Any]) -> int: ...
    def capsule(self) -> object: ...
