"""The numeric work, the same code in every server: NumPy for what NumPy does best, onnxruntime for networks.

A function takes arrays with a row for each instance, and returns a list of such arrays. Networks are read from
$RIVALS_MODELS/NAME.onnx and run with one thread, as the server has one core.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from rival_work.works import Work

NETWORKS = ("mlp", "lenet", "resnet50", "embed", "mix", "head")


def add(x1, x2):
    return [x1 + x2]


def plus_one(x):
    return [x + np.float32(1)]


def to_unit(x):
    return [x.astype(np.float32) * np.float32(1 / 255)]


def best(scores):
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    digit = scores.argmax(axis=1)[:, None]
    share = np.take_along_axis(weights, digit, axis=1) / weights.sum(axis=1, keepdims=True)
    return [digit.astype(np.int64), share]


def network(name):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    path = Path(os.environ["RIVALS_MODELS"], name + ".onnx")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(x):
        return session.run(None, {"x": x})

    return run


def stage(name):
    """The function of that name, ready to run."""
    return network(name) if name in NETWORKS else globals()[name]


def load(work: Work):
    """All stages of a work as one function of a list of arrays."""
    stages = [stage(name) for name in work.stages]

    def run(arrays):
        for function in stages:
            arrays = function(*arrays)
        return arrays

    return run


def run_together(function, requests):
    """Runs requests, each a list of arrays, as one batch, and gives each its rows of the results."""
    if len(requests) == 1:
        return [function(requests[0])]
    rows = [len(request[0]) for request in requests]
    results = function([np.concatenate(parts) for parts in zip(*requests)])  # noqa: B905
    ends = np.cumsum(rows)
    return [[result[end - count : end] for result in results] for count, end in zip(rows, ends)]  # noqa: B905
