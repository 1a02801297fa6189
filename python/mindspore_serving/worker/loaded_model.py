"""A model that a worker has loaded."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mindspore_serving.worker import _mindspore
from mindspore_serving.worker.session_library import TensorInfo

logger = logging.getLogger("mindspore_serving.worker")

PYTHON_EXECUTOR = "python executor"


@dataclass
class LoadedModel:
    """A model that is ready to run. Keep it alive as long as a session runs its phases.

    Attributes:
        model_file: Where it came from.
        inputs: Its inputs; the leading dimension of a batched one is `batch_size`.
        outputs: Its outputs, tuples flattened.
        batch_size: Rows that a run takes at most; 0: the model has no batch dimension; -1: any number of rows.
        batch_sizes: The batch sizes it is compiled for, ascending; empty unless `batch_size` is above 0.
        way: "kernel replay", "backend run" or "python executor".
        session_library: The library that runs it; None for the Python executor.
        session_options: What that library's open() takes.
    """

    model_file: str
    inputs: list[TensorInfo]
    outputs: list[TensorInfo] = field(default_factory=list)
    batch_size: int = 0
    batch_sizes: list[int] = field(default_factory=list)
    way: str = PYTHON_EXECUTOR
    session_library: Path | None = None
    session_options: dict[str, str] = field(default_factory=dict)
    compiled: dict[int, str] = field(default_factory=dict)  # by batch size; 0: the only one
    batch_input: int = 0  # an input whose leading dimension is the batch
    without_batch: tuple[int, ...] = ()
    cells: list[Any] = field(default_factory=list)

    @property
    def phases(self) -> str:
        """The session library's option of this name."""
        return ";".join(f"{size}:{phase}" for size, phase in sorted(self.compiled.items()))

    def python_run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run once through MindSpore's Python executor.

        Raises:
            RuntimeError: The inputs do not fit, or MindSpore failed.
        """
        size = inputs[self.batch_input].shape[0] if self.batch_sizes else 0
        if size not in self.compiled:
            raise RuntimeError(f"{self.model_file} was not compiled for batch size {size}")
        try:
            return _mindspore.execute(self.compiled[size], inputs)
        except Exception as error:
            raise RuntimeError(f"{self.model_file} failed: {_mindspore.shorten(error)}") from error

    def drop_batch_size(self, size: int, why: str) -> None:
        """Do without a batch size; rows are padded to the next one."""
        logger.warning("%s: batch size %d is not used: %s", self.model_file, size, why)
        self.compiled.pop(size, None)
        self.batch_sizes = [kept for kept in self.batch_sizes if kept != size]
