"""The works: what goes in, what comes out, and how many instances one run of the model may take."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
    name: str
    dtype: type
    shape: tuple  # of one instance

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class Work(NamedTuple):
    name: str
    inputs: tuple
    outputs: tuple
    max_batch: int  # 1: a run takes one instance, there is no batching
    stages: tuple  # names of functions in functions.py, in order


_F32 = np.float32
_PAIR = (Tensor("x1", _F32, (2, 2)), Tensor("x2", _F32, (2, 2)))
_SUM = (Tensor("y", _F32, (2, 2)),)
_SCORES = (Tensor("y", _F32, (10,)),)

WORKS = {
    work.name: work
    for work in (
        Work("add", _PAIR, _SUM, 1, ("add",)),
        Work("addb", _PAIR, _SUM, 32, ("add",)),
        Work("mlp", (Tensor("x", _F32, (784,)),), _SCORES, 32, ("mlp",)),
        Work("lenet", (Tensor("x", _F32, (1, 8, 8)),), _SCORES, 32, ("lenet",)),
        Work("resnet50", (Tensor("x", _F32, (3, 224, 224)),), (Tensor("y", _F32, (1000,)),), 1, ("resnet50",)),
        Work(
            "prepost",
            (Tensor("x", np.uint8, (784,)),),
            (Tensor("digit", np.int64, (1,)), Tensor("share", _F32, (1,))),
            32,
            ("to_unit", "mlp", "best"),
        ),
        Work("pipeline", (Tensor("x", _F32, (784,)),), _SCORES, 32, ("embed", "mix", "head")),
        Work("big", (Tensor("x", _F32, (1024, 1024)),), (Tensor("y", _F32, (1024, 1024)),), 1, ("plus_one",)),
    )
}


def chosen() -> Work:
    """The work that this server was started for."""
    return WORKS[os.environ["RIVALS_WORK"]]


def random_inputs(work: Work, instances: int) -> list:
    """One array for each input, with a row for each instance; the same in every process."""
    random = np.random.default_rng(1)
    arrays = []
    for tensor in work.inputs:
        shape = (instances, *tensor.shape)
        if tensor.dtype is np.uint8:
            arrays.append(random.integers(0, 256, shape).astype(np.uint8))
        elif work.name in ("add", "addb"):
            arrays.append(random.integers(0, 100, shape).astype(tensor.dtype))
        else:
            arrays.append(random.random(shape).astype(tensor.dtype))
    return arrays
