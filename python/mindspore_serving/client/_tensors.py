"""Python and NumPy values to Tensor messages and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mindspore_serving.proto import ms_service_pb2

_NUMBERS = {
    ms_service_pb2.MS_BOOL: np.bool_,
    ms_service_pb2.MS_INT8: np.int8,
    ms_service_pb2.MS_UINT8: np.uint8,
    ms_service_pb2.MS_INT16: np.int16,
    ms_service_pb2.MS_UINT16: np.uint16,
    ms_service_pb2.MS_INT32: np.int32,
    ms_service_pb2.MS_UINT32: np.uint32,
    ms_service_pb2.MS_INT64: np.int64,
    ms_service_pb2.MS_UINT64: np.uint64,
    ms_service_pb2.MS_FLOAT16: np.float16,
    ms_service_pb2.MS_FLOAT32: np.float32,
    ms_service_pb2.MS_FLOAT64: np.float64,
}
# The wire is little-endian whatever the machine is.
_DTYPE_OF = {number: np.dtype(kind).newbyteorder("<") for number, kind in _NUMBERS.items()}
# By kind and size, which a byte order and aliases such as longlong do not change.
_NUMBER_OF = {(dtype.kind, dtype.itemsize): number for number, dtype in _DTYPE_OF.items()}


def fill_tensor(name: str, value: object, tensor: Any) -> None:
    """Writes the value of input `name` into the empty Tensor message `tensor`.

    Raises:
        RuntimeError: Values of this kind cannot be sent.
    """
    # NumPy's float64 is also a float, its str_ also a str: arrays and NumPy's numbers come first.
    if isinstance(value, (np.ndarray, np.number)):
        _fill_array(name, np.asarray(value), tensor)
    elif isinstance(value, str):
        tensor.dtype = ms_service_pb2.MS_STRING
        tensor.shape.dims.append(1)
        tensor.bytes_val.append(value.encode("utf-8"))
    elif isinstance(value, bytes):
        tensor.dtype = ms_service_pb2.MS_BYTES
        tensor.shape.dims.append(1)
        tensor.bytes_val.append(value)
    elif isinstance(value, (bool, int, float)):
        _fill_array(name, np.asarray([value]), tensor)
    else:
        raise RuntimeError(
            f"Not support value type {type(value)} of input '{name}': it should be a numpy array or number, int, "
            "float, bool, str or bytes; numpy.asarray() makes an array of most others"
        )


def _fill_array(name: str, array: npt.NDArray[Any], tensor: Any) -> None:
    number = _NUMBER_OF.get((array.dtype.kind, array.dtype.itemsize))
    if number is None:
        raise RuntimeError(
            f"Unknown data type {array.dtype} of input '{name}': it should be bool, an int or uint of up to 64 bits, "
            "float16, float32 or float64"
        )
    tensor.dtype = number
    tensor.shape.dims.extend(array.shape)
    tensor.data = array.astype(_DTYPE_OF[number], copy=False).tobytes()


def value_of(name: str, tensor: Any) -> Any:
    """The value of output `name`: a read-only array (of no dimensions for a scalar), str or bytes.

    Raises:
        RuntimeError: The message is not a tensor.
    """
    if tensor.dtype == ms_service_pb2.MS_STRING:
        return _text_of([element.decode("utf-8") for element in tensor.bytes_val])
    if tensor.dtype == ms_service_pb2.MS_BYTES:
        return _text_of(list(tensor.bytes_val))
    dtype = _DTYPE_OF.get(tensor.dtype)
    if dtype is None:
        raise RuntimeError(f"Unknown data type {tensor.dtype} of output '{name}'")
    shape = tuple(tensor.shape.dims)
    data: bytes = tensor.data
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data):
        raise RuntimeError(f"Output '{name}' has {len(data)} bytes of data, which do not fit shape {shape} of {dtype}")
    # A view of the bytes, without a copy; bytes do not change, so neither does the array.
    return np.frombuffer(data, dtype).reshape(shape)


def _text_of(elements: list[Any]) -> Any:
    return elements[0] if len(elements) == 1 else elements
