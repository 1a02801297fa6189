"""Which ranks of a rank table belong to this machine."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass

from mindspore_serving.server.distributed._rank_table import Rank, RankTable


@dataclass(frozen=True)
class LocalRanks:
    """This machine's part of a distributed model."""

    ip: str  # under which the ranks of other machines reach those of this one
    ranks: tuple[Rank, ...]


def is_local(ip: str) -> bool:
    """Whether an address is one of this machine's: a socket can be bound to it."""
    try:
        found = socket.getaddrinfo(ip, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(_binds(family, address) for family, _, _, _, address in found)


def find_local_ranks(
    table: RankTable, agent_ip: str | None, rank_start: int | None, can_bind: Callable[[str], bool] = is_local
) -> LocalRanks:
    """Find the ranks that this machine is to run.

    Args:
        table: The rank table.
        agent_ip: This machine's address; None: the one in the rank table that is of this machine.
        rank_start: The first rank of this machine; given with `agent_ip` and not otherwise. Its ranks are those from
            this one on that the table puts on the same server.
        can_bind: Says whether an address is of this machine.

    Raises:
        RuntimeError: There are none, or several addresses of the table are of this machine.
    """
    if agent_ip is not None and rank_start is not None:
        return LocalRanks(agent_ip, _ranks_from(table, rank_start))
    local = [ip for ip in table.ips if can_bind(ip)]
    if not local:
        raise RuntimeError(
            f"No address of the rank table is of this machine: {', '.join(table.ips)}. Start the agents on the "
            "machines that the rank table names, or give agent_ip and rank_start"
        )
    if len(local) > 1:
        raise RuntimeError(
            f"Several addresses of the rank table are of this machine: {', '.join(local)}. Give agent_ip and "
            "rank_start to say which ranks are to be started here"
        )
    return LocalRanks(local[0], tuple(rank for rank in table.ranks if rank.ip == local[0]))


def _ranks_from(table: RankTable, rank_start: int) -> tuple[Rank, ...]:
    if rank_start >= len(table.ranks):
        raise RuntimeError(
            f"Parameter 'rank_start' should be less than the rank size {len(table.ranks)}, but {rank_start} was given"
        )
    ip = table.ranks[rank_start].ip
    return tuple(rank for rank in table.ranks[rank_start:] if rank.ip == ip)


def _binds(family: int, address: tuple[object, ...]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


class ReservedPort:
    """The first free port from `first` on: kept from other launchers, but not from the process of ours that is
    to listen there (which sets SO_REUSEADDR, as servers do).

    Args:
        host: The address of this machine to listen on.
        first: The first port to try.
        last: The last one.

    Raises:
        RuntimeError: There is none, or the address is not of this machine.
    """

    def __init__(self, host: str, first: int, last: int = 65535) -> None:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, first, type=socket.SOCK_STREAM)[0]
        except OSError as error:
            raise RuntimeError(f"The address '{host}' of the ranks is not known here: {error}") from error
        for port in range(first, last + 1):
            taken = socket.socket(family, socket.SOCK_STREAM)
            try:
                taken.bind((address[0], port, *address[2:]))
            except OSError as error:
                taken.close()
                if error.errno in (errno.EADDRINUSE, errno.EACCES):
                    continue
                raise RuntimeError(f"The address '{host}' of the ranks is not of this machine: {error}") from error
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # from now on
            self.port = port
            self._socket = taken
            return
        raise RuntimeError(f"No port from agent_start_port {first} on is free on {host}")

    def release(self) -> None:
        """Let others have it; a second call does nothing."""
        self._socket.close()
