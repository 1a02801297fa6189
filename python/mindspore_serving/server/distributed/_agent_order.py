"""What a launcher tells an agent process: the only thing that the two must agree on besides the environment."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass

REGISTERED = "registered\n"  # what an agent says when the distributed worker has taken it
WORKER_GONE = 75  # the exit code of an agent whose connection to the distributed worker has ended


@dataclass(frozen=True)
class AgentOrder:
    """The order of one agent, or of MindSpore's scheduler (rank None)."""

    rank: int | None
    device_type: str
    device_id: int = 0
    models: tuple[str, ...] = ()
    dec_mode: str | None = None  # None: no model is encrypted. The key itself is not part of the order
    group_file: str | None = None
    with_batch_dim: bool = True
    without_batch_dim_inputs: tuple[int, ...] = ()
    kernel_threads: int = 1
    max_buckets: int = 1  # batch sizes to compile a model for
    address: str = ""  # the distributed worker's
    token: str = ""
    certificate: str | None = None
    private_key: str | None = None
    custom_ca: str | None = None
    use_tls: bool = False

    def to_bytes(self, key: bytes | None) -> bytes:
        """What csrc/worker/agent_link.h reads, up to the key, which is to be sent right after it."""
        text = json.dumps(asdict(self)).encode()
        return struct.pack("<IB", len(text), 0 if key is None else len(key)) + text

    @classmethod
    def from_json(cls, text: bytes) -> AgentOrder:
        """Read the launcher's JSON."""
        values = json.loads(text)
        for name in ("models", "without_batch_dim_inputs"):
            values[name] = tuple(values[name])
        return cls(**values)
