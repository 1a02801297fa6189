"""Whether two ways of running a model compute the same: random inputs, and what counts as equal."""

from collections.abc import Iterator, Sequence

import numpy as np

from mindspore_serving.worker.session_library import NUMPY_DTYPES, TensorInfo, aligned_empty

# Allowed difference, as a share of the largest magnitude in the tensor. Kernels for another batch size may add up in
# another order.
_TOLERANCE = {"float16": 2e-2, "float32": 1e-3, "float64": 1e-9}

# What dynamic dimensions are tried with: a model may refuse some (a convolution wants at least its kernel's size).
_DYNAMIC_SIZES = (4, 1, 16, 64, 224)


def random_inputs(inputs: Sequence[TensorInfo], dynamic_size: int, seed: int = 2024) -> list[np.ndarray]:
    """Inputs that most models accept: floats in [-1, 1], integers 0 and 1 (they may be indices), any booleans."""
    random = np.random.default_rng(seed)
    arrays: list[np.ndarray] = []
    for info in inputs:
        dims = (dynamic_size, dynamic_size) if info.dims is None else info.dims
        shape = tuple(dynamic_size if dim < 0 else dim for dim in dims)
        dtype = NUMPY_DTYPES[info.dtype]
        array = aligned_empty(shape, dtype)
        array[...] = random.uniform(-1, 1, shape) if dtype.kind == "f" else random.integers(0, 2, shape)
        arrays.append(array)
    return arrays


def trial_inputs(inputs: Sequence[TensorInfo]) -> Iterator[list[np.ndarray]]:
    """Inputs to try in this order, until the model accepts some."""
    dynamic = any(info.dims is None or -1 in info.dims for info in inputs)
    for size in _DYNAMIC_SIZES if dynamic else _DYNAMIC_SIZES[:1]:
        yield random_inputs(inputs, size)


def difference(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> str:
    """How two lists of outputs differ; '' if they agree."""
    if len(expected) != len(actual):
        return f"{len(actual)} outputs instead of {len(expected)}"
    for index, (want, have) in enumerate(zip(expected, actual, strict=True)):
        if want.shape != have.shape or want.dtype != have.dtype:
            return f"output {index} is {have.dtype}{list(have.shape)} instead of {want.dtype}{list(want.shape)}"
        if not _close(want, have):
            return f"the values of output {index} differ"
    return ""


def _close(want: np.ndarray, have: np.ndarray) -> bool:
    tolerance = _TOLERANCE.get(want.dtype.name)
    if tolerance is None or want.size == 0:
        return bool(np.array_equal(want, have))
    magnitude = np.abs(want[np.isfinite(want)].astype(np.float64))
    allowed = tolerance * max(1.0, float(magnitude.max(initial=0.0)))
    return bool(np.allclose(want, have, rtol=tolerance, atol=allowed, equal_nan=True))
