"""A session library (csrc/include/mindspore_serving/session.h) called from Python, through ctypes.

The core opens session libraries itself. This is what checks a library against MindSpore when a model is loaded, and
what tests use.
"""

import ctypes
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mindspore_serving

LIBRARY_DIR_VARIABLE = "MSSERVING_SESSION_LIBRARY_DIR"
ABI_VERSION = 1
MAX_RANK = 8
ALIGNMENT = 64

# Element types by their number in the wire's DataType enum.
NUMPY_DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.bool_),
    2: np.dtype(np.int8),
    3: np.dtype(np.uint8),
    4: np.dtype(np.int16),
    5: np.dtype(np.uint16),
    6: np.dtype(np.int32),
    7: np.dtype(np.uint32),
    8: np.dtype(np.int64),
    9: np.dtype(np.uint64),
    10: np.dtype(np.float16),
    11: np.dtype(np.float32),
    12: np.dtype(np.float64),
}
WIRE_DTYPES: dict[np.dtype[Any], int] = {dtype: number for number, dtype in NUMPY_DTYPES.items()}


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model.

    Attributes:
        name: Its name in the model; empty if it has none.
        dtype: The element type's number in the wire's DataType enum.
        dims: Its shape, -1 where a dimension is dynamic; None if even the rank is.
    """

    name: str
    dtype: int
    dims: tuple[int, ...] | None


class _TensorInfo(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("dims", ctypes.c_int64 * MAX_RANK),
    ]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_uint64),
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("dims", ctypes.c_int64 * MAX_RANK),
    ]


class _SessionInfo(ctypes.Structure):
    _fields_ = [
        ("inputs", ctypes.POINTER(_TensorInfo)),
        ("inputs_count", ctypes.c_size_t),
        ("outputs", ctypes.POINTER(_TensorInfo)),
        ("outputs_count", ctypes.c_size_t),
        ("batch_sizes", ctypes.POINTER(ctypes.c_int64)),
        ("batch_sizes_count", ctypes.c_size_t),
        ("way", ctypes.c_char_p),
    ]


class _Option(ctypes.Structure):
    _fields_ = [("key", ctypes.c_char_p), ("value", ctypes.c_char_p)]


class _Table(ctypes.Structure):
    _fields_ = [
        ("abi_version", ctypes.c_uint32),
        ("name", ctypes.c_char_p),
        (
            "open",
            ctypes.CFUNCTYPE(
                ctypes.c_int,
                ctypes.POINTER(_Option),
                ctypes.c_size_t,
                ctypes.POINTER(ctypes.c_void_p),
                ctypes.c_char_p,
                ctypes.c_size_t,
            ),
        ),
        ("describe", ctypes.CFUNCTYPE(ctypes.POINTER(_SessionInfo), ctypes.c_void_p)),
        ("run", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(_Tensor), ctypes.POINTER(_Tensor))),
        ("last_error", ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)),
        ("close", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    ]


def _python_loop(run: Callable[..., int], session: ctypes.c_void_p, given: Any, results: Any, runs: int) -> int:
    for made in range(runs):
        if run(session, given, results) != 0:
            return made
    return runs


class Session:
    """An open session. One call at a time, from any thread."""

    def __init__(self, library: "SessionLibrary", handle: ctypes.c_void_p):
        self._library = library
        self._handle: ctypes.c_void_p | None = handle
        info = library.table.describe(handle).contents
        self.inputs = [_info(info.inputs[i]) for i in range(info.inputs_count)]
        self.outputs = [_info(info.outputs[i]) for i in range(info.outputs_count)]
        self.batch_sizes = [int(info.batch_sizes[i]) for i in range(info.batch_sizes_count)]
        self.way: str = info.way.decode()

    def run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run the graph once; the results are copies.

        Raises:
            RuntimeError: The run failed, for the reason told.
        """
        arrays = [_aligned(array) for array in inputs]  # kept until the results are copied: they may alias inputs
        return [_array(result) for result in self._run(arrays, 1)]

    def repeat(self, inputs: Sequence[np.ndarray], runs: int, loop: Callable[..., int] = _python_loop) -> None:
        """Run the graph `runs` times on the same inputs and drop the results: what a run costs by itself.

        Args:
            inputs: Arrays as run() takes them.
            runs: How many times.
            loop: Calls its first argument with the next three so many times as the last one says, while that gives 0,
                and returns how often it did. Python's own takes most of a microsecond for each.

        Raises:
            RuntimeError: A run failed, for the reason told.
        """
        self._run([_aligned(array) for array in inputs], runs, loop)

    def _run(
        self, arrays: Sequence[np.ndarray], runs: int, loop: Callable[..., int] = _python_loop
    ) -> "ctypes.Array[_Tensor]":
        if self._handle is None:
            raise RuntimeError("the session is closed")
        if len(arrays) != len(self.inputs):
            raise RuntimeError(f"the session takes {len(self.inputs)} inputs, not {len(arrays)}")
        given = (_Tensor * len(arrays))(*[_tensor(array) for array in arrays])
        results = (_Tensor * len(self.outputs))()
        if loop(self._library.table.run, self._handle, given, results, runs) != runs:
            raise RuntimeError(self._library.table.last_error(self._handle).decode(errors="replace"))
        return results

    def close(self) -> None:
        """Close the session; a second call does nothing."""
        if self._handle is not None:
            self._library.table.close(self._handle)
            self._handle = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SessionLibrary:
    """A session library, opened as the core opens it.

    Args:
        path: The shared object.

    Raises:
        RuntimeError: It does not load, or speaks another version of the ABI.
    """

    def __init__(self, path: str | os.PathLike[str]):
        try:
            self._library = ctypes.CDLL(os.fspath(path), mode=os.RTLD_NOW | os.RTLD_LOCAL)
            entry = self._library.ms_serving_session_library
        except (OSError, AttributeError) as error:
            raise RuntimeError(f"session library {path} cannot be loaded: {error}") from error
        entry.restype = ctypes.POINTER(_Table)
        self.table = entry().contents
        if self.table.abi_version != ABI_VERSION:
            raise RuntimeError(
                f"session library {path} speaks version {self.table.abi_version} of the session ABI, not {ABI_VERSION}"
            )
        self.name: str = self.table.name.decode()

    def open(self, options: Mapping[str, str]) -> Session:
        """Open a session.

        Args:
            options: What the library's open() takes.

        Raises:
            RuntimeError: The library refused, for the reason told.
        """
        encoded = [_Option(key.encode(), value.encode()) for key, value in options.items()]
        table = (_Option * len(encoded))(*encoded)
        handle = ctypes.c_void_p()
        error = ctypes.create_string_buffer(1024)
        if self.table.open(table, len(encoded), ctypes.byref(handle), error, len(error)) != 0:
            raise RuntimeError(error.value.decode(errors="replace"))
        return Session(self, handle)


def find_library(file_name: str) -> Path | None:
    """A session library of this installation, or None if there is none of this name."""
    folder = os.environ.get(LIBRARY_DIR_VARIABLE)
    folders = [Path(folder)] if folder else [Path(part, "lib") for part in mindspore_serving.__path__]
    return next((path for part in folders if (path := part / file_name).is_file()), None)


def built_for_mindspore(path: Path) -> str:
    """The MindSpore version that a mindspore session library was built for, read without loading it; may be ''."""
    marker = b"msserving-session-built-for-mindspore="
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(marker)
        if start < 0:
            return ""
        start += len(marker)
        return content[start : content.find(b"\n", start)].decode(errors="replace")


def aligned_empty(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """An uninitialised array whose memory starts where the ABI wants it to."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _aligned(array: np.ndarray) -> np.ndarray:
    if array.flags.c_contiguous and array.ctypes.data % ALIGNMENT == 0:
        return array
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def _tensor(array: np.ndarray) -> _Tensor:
    dims = (ctypes.c_int64 * MAX_RANK)(*array.shape)
    return _Tensor(array.ctypes.data, array.nbytes, WIRE_DTYPES[array.dtype], array.ndim, dims)


def _array(tensor: _Tensor) -> np.ndarray:
    result = np.empty(tuple(tensor.dims[: tensor.rank]), NUMPY_DTYPES[tensor.dtype])
    if result.nbytes != tensor.bytes:
        raise RuntimeError(f"a session library returned {tensor.bytes} bytes for a tensor of {result.nbytes}")
    if tensor.bytes:
        ctypes.memmove(result.ctypes.data, tensor.data, tensor.bytes)
    return result


def _info(info: _TensorInfo) -> TensorInfo:
    dims = None if info.rank < 0 else tuple(int(dim) for dim in info.dims[: info.rank])
    return TensorInfo(info.name.decode(), int(info.dtype), dims)
