"""What the distributed worker tells every launcher: how the ranks are laid out and how they load their models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mindspore_serving.server import _checks
from mindspore_serving.server.distributed._rank_table import RankTable, read_rank_table

# Launchers take no larger one: csrc/distributed/ bounds the frames of a connection that has not registered.
MAX_BYTES = 60_000


@dataclass(frozen=True)
class Configuration:
    """The layout of a distributed servable, the same for all of its launchers."""

    servable_name: str
    version: int
    rank_size: int
    stage_size: int
    with_batch_dim: bool
    without_batch_dim_inputs: tuple[int, ...]
    enable_pipeline_infer: bool
    device_type: str | None
    rank_table: RankTable

    def to_json(self) -> bytes:
        """The JSON that `from_json` reads.

        Raises:
            RuntimeError: The rank table is too large to be sent.
        """
        content = json.dumps(
            {**vars(self), "rank_table": self.rank_table.content}, separators=(",", ":"), ensure_ascii=False
        ).encode()
        if len(content) > MAX_BYTES:
            raise RuntimeError(
                f"The rank table is too large: without blanks it and the other settings take {len(content)} bytes, and "
                f"launchers take {MAX_BYTES}"
            )
        return content

    @classmethod
    def from_json(cls, content: bytes) -> Configuration:
        """Read what a worker has sent. It came over the network: nothing of it is believed unchecked.

        Raises:
            RuntimeError: It is not what a worker of this release sends.
        """
        try:
            values = json.loads(content)
            return _read(values)
        except (ValueError, KeyError, TypeError, RecursionError, RuntimeError) as error:
            raise RuntimeError(
                f"The configuration that the distributed worker sent is not understood ({error}): is it of the same "
                "release?"
            ) from None


def _read(values: dict[str, Any]) -> Configuration:
    device_type = values["device_type"]
    if device_type not in (None, "Ascend", "CPU"):
        raise RuntimeError(f"device_type {device_type!r}")
    without_batch = values["without_batch_dim_inputs"]
    return Configuration(
        servable_name=_checks.check_str("servable_name", values["servable_name"]),
        version=_checks.check_int("version", values["version"], 1),
        rank_size=_checks.check_int("rank_size", values["rank_size"], 1),
        stage_size=_checks.check_int("stage_size", values["stage_size"], 1),
        with_batch_dim=_checks.check_bool("with_batch_dim", values["with_batch_dim"]),
        without_batch_dim_inputs=_checks.check_indexes("without_batch_dim_inputs", without_batch),
        enable_pipeline_infer=_checks.check_bool("enable_pipeline_infer", values["enable_pipeline_infer"]),
        device_type=device_type,
        rank_table=read_rank_table(values["rank_table"], "of the distributed worker"),
    )
