"""Loads a model file for a worker: compiles it for its batch sizes and chooses the fastest way that computes the same.

Three ways, in order of preference: *kernel replay* and *backend run* belong to the mindspore session library, which
runs without Python; *python executor* is MindSpore's own, for what the library cannot run or where there is none. A
way is taken only after it has agreed with MindSpore's own executor on random inputs.
"""

import logging
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import mindspore_serving
from mindspore_serving.worker import _mindspore
from mindspore_serving.worker.agreement import difference, trial_inputs
from mindspore_serving.worker.mindir import MindIR, parse_mindir
from mindspore_serving.worker.session_library import (
    NUMPY_DTYPES,
    WIRE_DTYPES,
    Session,
    SessionLibrary,
    TensorInfo,
    built_for_mindspore,
)

logger = logging.getLogger("mindspore_serving.worker")

LIBRARY_NAME = "libmsserving_session_mindspore.so"
LIBRARY_DIR_VARIABLE = "MSSERVING_SESSION_LIBRARY_DIR"
BUILD_COMMAND = "python -m mindspore_serving.build_session"

PYTHON_EXECUTOR = "python executor"

_LARGE_FILE = 16 << 20

# Operators that change a parameter: such a model is run for its own batch size alone, and its parameters are put back
# after the check.
_STATEFUL = re.compile(r"^(Assign|Scatter|Apply|Sparse|Fused|Momentum|Adam|Push|Pull|Random|Multinomial|Dropout)")


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
    _phases: dict[int, str] = field(default_factory=dict)  # by batch size; 0: the only one
    _batch_input: int = 0  # an input whose leading dimension is the batch
    _without_batch: tuple[int, ...] = ()
    _cells: list[Any] = field(default_factory=list)

    @property
    def phases(self) -> str:
        """The session library's option of this name."""
        return ";".join(f"{size}:{phase}" for size, phase in sorted(self._phases.items()))

    def python_run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run once through MindSpore's Python executor.

        Raises:
            RuntimeError: The inputs do not fit, or MindSpore failed.
        """
        size = inputs[self._batch_input].shape[0] if self.batch_sizes else 0
        if size not in self._phases:
            raise RuntimeError(f"{self.model_file} was not compiled for batch size {size}")
        try:
            return _mindspore.execute(self._phases[size], inputs)
        except Exception as error:
            raise RuntimeError(f"{self.model_file} failed: {_mindspore.shorten(error)}") from error


def load_model(
    model_file: str,
    *,
    with_batch_dim: bool,
    without_batch_dim_inputs: tuple[int, ...] = (),
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
    device_type: str | None = None,
    device_id: int = 0,
    max_buckets: int = 6,
    compile_budget_s: float = 0.25,
    kernel_threads: int = 0,
) -> LoadedModel:
    """Load, compile and check a MindIR.

    Args:
        model_file: The MindIR.
        with_batch_dim: The leading dimension of its inputs and outputs is the batch.
        without_batch_dim_inputs: Positions of inputs that have none all the same.
        dec_key: The key of an encrypted file.
        dec_mode: How it is encrypted, "AES-GCM" or "AES-CBC".
        device_type: "CPU", "Ascend", "GPU" or None for MindSpore's own choice.
        device_id: Which of them.
        max_buckets: The most batch sizes to compile it for. 1 and its own are always among them.
        compile_budget_s: Stop adding batch sizes when compiling them has taken this long.
        kernel_threads: Threads among which a kernel may split its work; 0: MindSpore's own choice.

    Raises:
        RuntimeError: The file cannot be served, for the reason told.
    """
    path = Path(model_file)
    source = _Source(path, dec_key, dec_mode)
    signature = source.read_signature()
    _mindspore.avoid_slow_convolutions(signature.operators)
    device = _mindspore.set_device(device_type, device_id)
    model = LoadedModel(str(path), signature.inputs, _without_batch=without_batch_dim_inputs)
    _find_batch_size(model, with_batch_dim)
    stateful = any(_STATEFUL.match(name) for name in signature.operators)
    _compile(model, source, 1 if stateful else max_buckets, compile_budget_s)
    _choose_way(model, signature, device, stateful, kernel_threads)
    logger.info("%s: %s%s", path, model.way, f", batch sizes {model.batch_sizes}" if model.batch_sizes else "")
    return model


@dataclass
class _Source:
    """A model file and how to read it."""

    path: Path
    dec_key: bytes | None
    dec_mode: str
    is_large: bool = False  # too large to be loaded once for each batch size

    def read_signature(self) -> MindIR:
        try:
            if self.dec_key is None:
                content = self.path.read_bytes()
            else:
                content = _mindspore.read_decrypted(self.path, self.dec_key, self.dec_mode)
            self.is_large = len(content) > _LARGE_FILE
            return parse_mindir(memoryview(content))
        except OSError as error:
            raise RuntimeError(f"Load model failed, {self.path}: {error.strerror}") from error
        except Exception as error:
            reason = _mindspore.shorten(error)
            if self.dec_key is None:
                reason += "; if it is encrypted, give its dec_key"
            else:
                reason += "; are dec_key and dec_mode those that it was encrypted with?"
            raise RuntimeError(f"Load model failed, {self.path}: {reason}") from error

    def load(self) -> Any:
        return _mindspore.load_graph_cell(self.path, self.dec_key, self.dec_mode)


def _find_batch_size(model: LoadedModel, with_batch_dim: bool) -> None:
    without = model._without_batch
    if any(index >= len(model.inputs) for index in without):
        raise RuntimeError(
            f"Load model failed, {model.model_file}: without_batch_dim_inputs {list(without)} names an input that the "
            f"model does not have; it has {len(model.inputs)}"
        )
    if not with_batch_dim:
        return
    batched = [index for index in range(len(model.inputs)) if index not in without]
    sizes = {dims[0] if (dims := model.inputs[index].dims) else 0 for index in batched}
    if len(sizes) != 1 or 0 in sizes:
        shapes = ", ".join(f"{info.name}{list(info.dims or ())}" for info in model.inputs)
        raise RuntimeError(
            f"Load model failed, {model.model_file}: with_batch_dim is True, but its inputs have no batch size in "
            f"common ({shapes}). Batch size cannot be 0: name the inputs without batch dimension in "
            "without_batch_dim_inputs, or set with_batch_dim=False"
        )
    model.batch_size = sizes.pop()
    model._batch_input = batched[0]


def _bucket_sizes(batch_size: int, most: int) -> list[int]:
    """Powers of two below the batch size and itself; evenly thinned out if they are too many."""
    sizes = [1 << power for power in range(batch_size.bit_length()) if 1 << power < batch_size] + [batch_size]
    most = max(most, 2)
    if len(sizes) > most:
        sizes = [sizes[round(i * (len(sizes) - 1) / (most - 1))] for i in range(most)]
    return sizes


def _compile(model: LoadedModel, source: "_Source", max_buckets: int, budget_s: float) -> None:
    start = time.perf_counter()
    own = max(model.batch_size, 0)
    try:
        model._cells.append(source.load())
    except Exception as error:
        raise RuntimeError(f"Load model failed, {model.model_file}: {_mindspore.shorten(error)}") from error
    try:
        model._phases[own] = _compile_for(model, own)
    except Exception as error:
        raise RuntimeError(
            f"Load model failed, {model.model_file}: MindSpore does not compile it: {_mindspore.shorten(error)}"
        ) from error
    if own == 0:
        return
    for size in _further_buckets(model, source, max_buckets):
        if size != 1 and time.perf_counter() - start > budget_s:
            logger.info("%s: not compiled for batch size %d and below: it takes too long", model.model_file, size)
            break
        try:
            # A graph keeps what MindSpore folded into it for the shapes it was compiled for: each size has its own.
            if not source.is_large:
                model._cells.append(source.load())
            model._phases[size] = _compile_for(model, size)
        except Exception as error:
            _drop_bucket(model, size, f"it does not compile: {_mindspore.shorten(error)}")
    model.batch_sizes = sorted(model._phases)


def _further_buckets(model: LoadedModel, source: "_Source", most: int) -> list[int]:
    """1, then from large to small: what saves most padding first."""
    sizes = _bucket_sizes(model.batch_size, most)[:-1] if most > 1 else []
    if not source.is_large:
        return sizes[:1] + sizes[:0:-1]
    # A copy of its weights for each size is too much. Compiling the same graph again is safe where nothing but the
    # kernels of a phase is used afterwards.
    return sizes[:1] if _replays(model) else []


def _replays(model: LoadedModel) -> bool:
    library = _usable_library()
    if library is None:
        return False
    try:
        library[1].open({"phases": model.phases, "way": "replay", **_version_option()}).close()
    except RuntimeError:
        return False
    return True


def _version_option() -> dict[str, str]:
    return {"mindspore_version": str(_mindspore.import_mindspore().__version__)}


def _compile_for(model: LoadedModel, size: int) -> str:
    shapes: list[list[int | None] | None] = []
    for index, info in enumerate(model.inputs):
        if info.dims is None:
            shapes.append(None)
            continue
        dims = list(info.dims)
        if size > 0 and index not in model._without_batch:
            dims[0] = size
        shapes.append([None if dim < 0 else dim for dim in dims])
    return _mindspore.compile_cell(model._cells[-1], shapes, [NUMPY_DTYPES[info.dtype] for info in model.inputs])


def _drop_bucket(model: LoadedModel, size: int, why: str) -> None:
    logger.warning("%s: batch size %d is not used: %s", model.model_file, size, why)
    model._phases.pop(size, None)
    model.batch_sizes = [kept for kept in model.batch_sizes if kept != size]


# ---------------------------------------------------------------------------------------------------------------------
# The way
# ---------------------------------------------------------------------------------------------------------------------


def find_session_library() -> Path | None:
    """The mindspore session library's file, or None if there is none."""
    folder = os.environ.get(LIBRARY_DIR_VARIABLE)
    folders = [Path(folder)] if folder else [Path(part, "lib") for part in mindspore_serving.__path__]
    return next((path for part in folders if (path := part / LIBRARY_NAME).is_file()), None)


@cache
def _usable_library() -> tuple[Path, SessionLibrary] | None:
    path = find_session_library()
    running = str(_mindspore.import_mindspore().__version__)
    problem = "there is none in this installation"
    if path is not None:
        built_for = built_for_mindspore(path)
        try:
            if built_for == running:
                return path, SessionLibrary(path)
            problem = f"it was built for MindSpore {built_for or 'unknown'}"
        except RuntimeError as error:
            problem = str(error)
    logger.warning(
        "No session library for MindSpore %s (%s): models run through MindSpore's Python executor, which is several "
        "times slower. Build it with: %s",
        running,
        problem,
        BUILD_COMMAND,
    )
    return None


@dataclass
class _Trial:
    """What MindSpore's own executor made of random inputs."""

    inputs: list[np.ndarray]
    outputs: list[np.ndarray]


def _choose_way(model: LoadedModel, signature: MindIR, device: str, stateful: bool, kernel_threads: int) -> None:
    library = _usable_library()
    state = _State(model._cells[0]) if stateful else None
    trial = _try_own_executor(model, state)
    if library is not None and trial is not None:
        for way in ("auto", "run") if device == "CPU" else ("run",):
            options = {"way": way, **_version_option()}
            if kernel_threads > 0:
                options["kernel_threads"] = str(kernel_threads)
            problem = _try_session(model, library[1], options, trial, state)
            if not problem:
                model.session_library = library[0]
                model.session_options = {"phases": model.phases, **options}
                _name_outputs(model, signature)
                return
            logger.warning("%s: cannot be run as '%s': %s", model.model_file, way, problem)
    model.way = PYTHON_EXECUTOR
    if trial is None:
        raise RuntimeError(f"Load model failed, {model.model_file}: MindSpore runs it with no inputs that were tried")
    if not model.outputs:
        model.outputs = [TensorInfo("", WIRE_DTYPES[array.dtype], array.shape) for array in trial.outputs]
    _check_python_buckets(model, trial)
    _name_outputs(model, signature)


def _try_own_executor(model: LoadedModel, state: "_State | None") -> _Trial | None:
    phase = model._phases[max(model.batch_size, 0)]
    for inputs in trial_inputs(model.inputs):
        try:
            outputs = _mindspore.execute(phase, inputs)
        except Exception as error:
            logger.warning("%s: does not run with random inputs: %s", model.model_file, _mindspore.shorten(error))
            continue
        finally:
            if state is not None:
                state.restore()
        for output in outputs:
            if output.dtype not in WIRE_DTYPES:
                raise RuntimeError(f"Load model failed, {model.model_file}: outputs of {output.dtype} cannot be served")
        _check_output_batch(model, outputs)
        return _Trial(inputs, outputs)
    return None


def _check_output_batch(model: LoadedModel, outputs: list[np.ndarray]) -> None:
    if model.batch_size > 0 and any(output.shape[:1] != (model.batch_size,) for output in outputs):
        shapes = ", ".join(str(list(output.shape)) for output in outputs)
        raise RuntimeError(
            f"Load model failed, {model.model_file}: with_batch_dim is True and the batch size of its inputs is "
            f"{model.batch_size}, but its outputs are of {shapes}"
        )


def _try_session(
    model: LoadedModel, library: SessionLibrary, options: dict[str, str], trial: _Trial, state: "_State | None"
) -> str:
    """Why this way does not do; '' if it does. Drops batch sizes that do not agree."""
    try:
        session = library.open({"phases": model.phases, **options})
    except RuntimeError as error:
        return str(error)
    with session:
        problem = _check_session(model, session, trial, state)
        if problem:
            return problem
        model.way = session.way
        model.outputs = session.outputs
    return ""


def _check_session(model: LoadedModel, session: Session, trial: _Trial, state: "_State | None") -> str:
    for size in model.batch_sizes[::-1] or [0]:
        own_size = size == max(model.batch_size, 0)
        try:
            outputs = session.run(_rows(model, trial.inputs, size))
        except RuntimeError as error:
            problem = str(error)
        else:
            problem = difference(trial.outputs if own_size else [o[:size] for o in trial.outputs], outputs)
        finally:
            if state is not None:
                state.restore()
        if problem and own_size:
            return "" if _is_random(model, trial, outputs if "values" in problem else None, state) else problem
        if problem:
            _drop_bucket(model, size, f"it disagrees with the model's own batch size: {problem}")
    return ""


def _check_python_buckets(model: LoadedModel, trial: _Trial) -> None:
    for size in [kept for kept in model.batch_sizes if kept != model.batch_size]:
        try:
            outputs = model.python_run(_rows(model, trial.inputs, size))
            problem = difference([output[:size] for output in trial.outputs], outputs)
        except RuntimeError as error:
            problem = str(error)
        if problem:
            _drop_bucket(model, size, f"it disagrees with the model's own batch size: {problem}")


def _rows(model: LoadedModel, inputs: list[np.ndarray], size: int) -> list[np.ndarray]:
    if size in (0, model.batch_size):
        return inputs
    return [array if index in model._without_batch else array[:size] for index, array in enumerate(inputs)]


def _is_random(
    model: LoadedModel, trial: _Trial, outputs: list[np.ndarray] | None, state: "_State | None"
) -> bool:
    """MindSpore's own executor does not agree with itself either: the values cannot be compared."""
    if outputs is None:
        return False
    again = _mindspore.execute(model._phases[max(model.batch_size, 0)], trial.inputs)
    if state is not None:
        state.restore()
    if not difference(trial.outputs, again):
        return False
    logger.info("%s: returns other values at every run, so that only shapes and types were checked", model.model_file)
    return True


def _name_outputs(model: LoadedModel, signature: MindIR) -> None:
    names = signature.output_names if len(signature.output_names) == len(model.outputs) else []
    model.outputs = [
        TensorInfo(names[index] if names else f"output{index}", info.dtype, info.dims)
        for index, info in enumerate(model.outputs)
    ]


class _State:
    """The values of a model's parameters, to be put back after a run that may have changed them."""

    def __init__(self, cell: Any):
        self._saved = [(parameter, parameter.asnumpy().copy()) for parameter in _mindspore.parameters(cell)]

    def restore(self) -> None:
        mindspore = _mindspore.import_mindspore()
        for parameter, value in self._saved:
            if not np.array_equal(parameter.asnumpy(), value, equal_nan=value.dtype.kind == "f"):
                parameter.set_data(mindspore.Tensor(value))
