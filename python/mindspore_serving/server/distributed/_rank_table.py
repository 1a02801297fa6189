"""Rank tables: which rank of a distributed model runs on which machine and device. Pure functions on the file's text.

Both documented forms of the JSON are read: `server_list` with the devices of each server, and `group_list` with one
entry for each rank.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 20
MAX_RANKS = 4096
ASCEND_DEVICES = 8  # of one server

_HOST = re.compile(r"[A-Za-z0-9_.:-]{1,255}")


@dataclass(frozen=True)
class Rank:
    """One process of a distributed model."""

    rank_id: int
    ip: str
    device_id: int


@dataclass(frozen=True)
class RankTable:
    """A rank table.

    Attributes:
        ranks: In the order of their ids, from 0.
        content: The whole JSON, as MindSpore wants it on Ascend.
    """

    ranks: tuple[Rank, ...]
    content: dict[str, Any]

    @property
    def ips(self) -> tuple[str, ...]:
        """The machines' addresses, each once, in the file's order."""
        return tuple(dict.fromkeys(rank.ip for rank in self.ranks))


def load_rank_table(path: Path) -> RankTable:
    """Read a rank table file.

    Raises:
        RuntimeError: It cannot be read, is larger than 1 MiB, or is no rank table.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RuntimeError(f"The rank table file '{path}' cannot be read: {error.strerror}") from error
    return parse_rank_table(content, str(path))


def parse_rank_table(content: bytes, source: str) -> RankTable:
    """Read the content of a rank table file.

    Args:
        content: The JSON.
        source: Where it came from, for messages.

    Raises:
        RuntimeError: It is no rank table; the text says what is wrong where.
    """
    if len(content) > MAX_BYTES:
        raise RuntimeError(f"The rank table file '{source}' is too large: more than {MAX_BYTES} bytes")
    try:
        table = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RuntimeError(f"The rank table file '{source}' is not JSON: {error}") from None
    return read_rank_table(table, source)


def read_rank_table(table: object, source: str) -> RankTable:
    """As `parse_rank_table`, of JSON that has been parsed."""
    fail = _Failure(source)
    if not isinstance(table, dict):
        raise fail("it should be an object", "the file")
    entries = _group_list(table, fail) if "group_list" in table else _server_list(table, fail)
    ranks: list[Rank] = []
    for rank, where in entries:
        if rank.rank_id != len(ranks):
            raise fail(
                f"rank_id should be '{len(ranks)}', as rank ids count from 0 in the file's order, but is "
                f"'{rank.rank_id}'",
                where,
            )
        if len(ranks) == MAX_RANKS:
            raise fail(f"there are more than {MAX_RANKS} ranks", where)
        ranks.append(rank)
    if not ranks:
        raise fail("there are no ranks", "the file")
    return RankTable(tuple(ranks), table)


def check_layout(table: RankTable, rank_size: int, stage_size: int, *, ascend: bool) -> None:
    """Check a rank table against what `declare_servable` was told.

    Args:
        table: The table.
        rank_size: The declared number of ranks.
        stage_size: The declared number of stages.
        ascend: The ranks run on Ascend, whose servers have 8 devices.

    Raises:
        RuntimeError: They do not fit.
    """
    if len(table.ranks) != rank_size:
        raise RuntimeError(
            f"The rank table has {len(table.ranks)} ranks, but the servable is declared with rank_size {rank_size}"
        )
    _check_devices(table, ascend=ascend)
    if ascend and stage_size > 1:
        _check_full_servers(table, rank_size, stage_size)


def _check_devices(table: RankTable, *, ascend: bool) -> None:
    owners: dict[tuple[str, int], int] = {}
    for rank in table.ranks:
        if ascend and rank.device_id >= ASCEND_DEVICES:
            raise RuntimeError(
                f"Rank {rank.rank_id} of the rank table has device id {rank.device_id}, but device ids should be less "
                f"than {ASCEND_DEVICES}"
            )
        other = owners.setdefault((rank.ip, rank.device_id), rank.rank_id)
        if other != rank.rank_id:
            raise RuntimeError(
                f"Ranks {other} and {rank.rank_id} of the rank table have the same device id {rank.device_id} on "
                f"{rank.ip}"
            )


def _check_full_servers(table: RankTable, rank_size: int, stage_size: int) -> None:
    if rank_size < ASCEND_DEVICES:
        raise RuntimeError(
            f"With stage_size {stage_size} the rank size should be at least {ASCEND_DEVICES}, but it is {rank_size}"
        )
    for rank in table.ranks:
        place = rank.rank_id % ASCEND_DEVICES
        first = table.ranks[rank.rank_id - place]
        if rank.ip != first.ip:
            raise RuntimeError(
                f"With stage_size {stage_size} each group of {ASCEND_DEVICES} ranks should be on one server, but rank "
                f"{first.rank_id} is on {first.ip} and rank {rank.rank_id} on {rank.ip}"
            )
        if rank.device_id != place:
            raise RuntimeError(
                f"With stage_size {stage_size} each group of {ASCEND_DEVICES} ranks should have device ids 0 to "
                f"{ASCEND_DEVICES - 1} in this order, but rank {rank.rank_id} has device id {rank.device_id}"
            )


class _Failure:
    """Makes the errors of one file."""

    def __init__(self, source: str) -> None:
        self._source = source

    def __call__(self, what: str, where: str) -> RuntimeError:
        return RuntimeError(f"The rank table file '{self._source}' is no rank table: {where}: {what}")


def _server_list(table: dict[str, Any], fail: _Failure) -> Iterator[tuple[Rank, str]]:
    if "server_list" not in table:
        raise fail("it should have 'server_list' or 'group_list'", "the file")
    for server, where in _items(table, "server_list", "", fail):
        ip = _ip(server, where, fail)
        for device, place in _items(server, "device", where, fail):
            yield Rank(_decimal(device, "rank_id", place, fail), ip, _decimal(device, "device_id", place, fail)), place


def _group_list(table: dict[str, Any], fail: _Failure) -> Iterator[tuple[Rank, str]]:
    for group, where in _items(table, "group_list", "", fail):
        for instance, place in _items(group, "instance_list", where, fail):
            device, device_place = next(_items(instance, "devices", place, fail))
            rank_id = _decimal(instance, "rank_id", place, fail)
            device_id = _decimal(device, "device_id", device_place, fail)
            yield Rank(rank_id, _ip(instance, place, fail), device_id), place


def _items(parent: dict[str, Any], key: str, where: str, fail: _Failure) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a list that should not be empty, each with its place in the file."""
    path = f"{where}.{key}" if where else key
    items = parent.get(key)
    if not isinstance(items, list) or not items:
        raise fail("it should be a list with at least one element", path)
    for i, item in enumerate(items):
        if not isinstance(item, dict):
            raise fail("it should be an object", f"{path}[{i}]")
        yield item, f"{path}[{i}]"


def _ip(parent: dict[str, Any], where: str, fail: _Failure) -> str:
    value = parent.get("server_id")
    if not isinstance(value, str) or not _HOST.fullmatch(value):
        raise fail(f"server_id should be the server's ip, but is {_show(value)}", where)
    return value


def _decimal(parent: dict[str, Any], key: str, where: str, fail: _Failure) -> int:
    value = parent.get(key)
    if not isinstance(value, str) or not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise fail(f"{key} should be a decimal number as a string, such as '0', but is {_show(value)}", where)
    return int(value)


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
