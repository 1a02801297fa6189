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
        way: "kernel replay", "backend run", "python executor" or "acl".
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

    def find_batch_size(self, with_batch_dim: bool) -> None:
        """Set `batch_size` and `batch_input`: what the leading dimensions of its batched inputs have in common.

        Raises:
            RuntimeError: They have nothing in common, or `without_batch` names an input that there is not.
        """
        if any(index >= len(self.inputs) for index in self.without_batch):
            raise RuntimeError(
                f"Load model failed, {self.model_file}: without_batch_dim_inputs {list(self.without_batch)} names an "
                f"input that the model does not have; it has {len(self.inputs)}"
            )
        if not with_batch_dim:
            return
        batched = [index for index in range(len(self.inputs)) if index not in self.without_batch]
        sizes = {dims[0] if (dims := self.inputs[index].dims) else 0 for index in batched}
        if len(sizes) != 1 or 0 in sizes:
            shapes = ", ".join(f"{info.name}{list(info.dims or ())}" for info in self.inputs)
            raise RuntimeError(
                f"Load model failed, {self.model_file}: with_batch_dim is True, but its inputs have no batch size in "
                f"common ({shapes}), and batch size cannot be 0: name the inputs without batch dimension in "
                "without_batch_dim_inputs, or set with_batch_dim=False"
            )
        self.batch_size = sizes.pop()
        self.batch_input = batched[0]

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
