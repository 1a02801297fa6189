"""The ranks of one distributed model, while it is loaded: what they do is decided together.

A graph with collectives runs only if all ranks run it. So whether a batch size is kept, which way is tried next and how
often a run is measured must come out the same everywhere, though every rank finds its own facts and times.
"""

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mindspore_serving.worker import _mindspore
from mindspore_serving.worker.mindir import SizedCollective

# What MindSpore calls the group of all ranks, by back-end.
_WORLD_GROUPS = ("", "hccl_world_group", "mccl_world_group", "nccl_world_group")


class SingleRank:
    """A model of one process, which decides alone.

    Attributes:
        rank: The number of this process.
        size: How many there are.
    """

    rank = 0
    size = 1

    def gather(self, value: float) -> list[float]:
        """What every rank has given, in the order of ranks. All of them must call it; numbers are rounded to float32.

        Raises:
            RuntimeError: A rank has gone.
        """
        return [value]

    def check_collectives(self, model_file: str, collectives: Sequence[SizedCollective]) -> None:
        """Check that a model's collectives were exported for as many ranks as there are.

        Raises:
            RuntimeError: One was not: MindSpore would not notice, and its kernel would write beyond its memory.
        """

    def all(self, flag: bool) -> bool:
        return min(self.gather(float(flag))) > 0

    def any(self, flag: bool) -> bool:
        return max(self.gather(float(flag))) > 0

    def largest(self, value: float) -> float:
        return max(self.gather(value))


class RankGroup(SingleRank):
    """All ranks of MindSpore's cluster; init() of mindspore.communication must have been called.

    Decisions are made by an AllGather of their own: it is the same collective that the models use.
    """

    def __init__(self) -> None:
        mindspore = _mindspore.import_mindspore()
        from mindspore.communication import get_group_size, get_rank

        self.rank, self.size = get_rank(), get_group_size()
        self._gather: Callable[[Any], Any] = _gather_cell(mindspore)

    def check_collectives(self, model_file: str, collectives: Sequence[SizedCollective]) -> None:
        for one in collectives:
            ranks = self._size_of(one.group)
            if one.rank_size != ranks:
                raise RuntimeError(
                    f"Load model failed, {model_file}: its operator {one.node} ({one.operator}) was exported for "
                    f"{one.rank_size} rank{'s' * (one.rank_size > 1)}, but its group '{one.group}' has {ranks} here. "
                    f"Export the model in a cluster of {ranks} ranks, or call "
                    f"add_prim_attr('rank_size', {ranks}) on the operator before"
                )

    def _size_of(self, group: str) -> int:
        from mindspore.communication import get_group_size

        return self.size if group in _WORLD_GROUPS else int(get_group_size(group))

    def gather(self, value: float) -> list[float]:
        mindspore = _mindspore.import_mindspore()
        try:
            gathered = self._gather(mindspore.Tensor(np.array([value], np.float32))).asnumpy()
        except Exception as error:
            raise RuntimeError(f"the ranks cannot agree, one may have gone: {_mindspore.shorten(error)}") from error
        return [float(element) for element in gathered]


def _gather_cell(mindspore: Any) -> Any:
    class Gather(mindspore.nn.Cell):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.gather = mindspore.ops.AllGather()

        def construct(self, value):  # type: ignore[no-untyped-def]
            return self.gather(value)

    return Gather()


def wait_for_scheduler(host: str, port: int, timeout_s: float) -> None:
    """Wait until MindSpore's scheduler takes connections. To be called before init().

    MindSpore gives each of its own attempts some thirty milliseconds and needs two to succeed together: ranks that try
    before the scheduler listens lose up to a minute.

    Raises:
        RuntimeError: It does not within `timeout_s`.
    """
    end = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError as error:
            if time.monotonic() >= end:
                raise RuntimeError(
                    f"MindSpore's scheduler at {host}:{port} does not take connections: {error.strerror or error}"
                ) from error
        time.sleep(0.05)
