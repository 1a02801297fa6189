"""HTTP bodies for servers that leave their form to the user: the tensors' bytes one after the other, or plain JSON."""

from __future__ import annotations

import json

import numpy as np


def from_raw(tensors, body):
    """Arrays with a row for each instance, as views into the body."""
    instances = len(body) // sum(tensor.nbytes for tensor in tensors)
    arrays = []
    offset = 0
    for tensor in tensors:
        shape = (instances, *tensor.shape)
        count = int(np.prod(shape))
        arrays.append(np.frombuffer(body, tensor.dtype, count, offset).reshape(shape))
        offset += tensor.nbytes * instances
    return arrays


def to_raw(arrays):
    if len(arrays) == 1:
        return arrays[0].tobytes()
    return b"".join(array.tobytes() for array in arrays)


def from_lists(tensors, values):
    return [np.asarray(values[tensor.name], tensor.dtype) for tensor in tensors]


def to_lists(tensors, arrays):
    return {tensor.name: array.tolist() for tensor, array in zip(tensors, arrays)}  # noqa: B905


def from_json(tensors, body):
    return from_lists(tensors, json.loads(body))


def to_json(tensors, arrays):
    return json.dumps(to_lists(tensors, arrays)).encode()
