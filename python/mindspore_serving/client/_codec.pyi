"""Stub of the Cython module."""

from collections.abc import Sequence
from typing import Any

def encode(instances: Sequence[Any], servable: str, method: str, version: int) -> bytes | None: ...
def decode(message: bytes) -> list[dict[str, Any]] | dict[str, str] | None: ...
