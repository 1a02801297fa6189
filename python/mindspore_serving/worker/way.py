"""Chooses how a compiled model is run, and proves the choice: it must agree with MindSpore's own executor.

Three ways, in order of preference: *kernel replay* and *backend run* belong to the mindspore session library, which
runs without Python; *python executor* is MindSpore's own, for what the library cannot run or where there is none.
"""

import logging
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mindspore_serving.worker import _mindspore
from mindspore_serving.worker.agreement import difference, trial_inputs
from mindspore_serving.worker.fusion import FUSABLE_OPERATORS, choose_fusion
from mindspore_serving.worker.kernel_pool import choose_kernel_threads, one_thread_is_possible
from mindspore_serving.worker.loaded_model import PYTHON_EXECUTOR, LoadedModel
from mindspore_serving.worker.mindir import MindIR
from mindspore_serving.worker.rank_group import SingleRank
from mindspore_serving.worker.session_library import (
    WIRE_DTYPES,
    Session,
    SessionLibrary,
    TensorInfo,
    built_for_mindspore,
    find_library,
)

logger = logging.getLogger("mindspore_serving.worker")

LIBRARY_NAME = "libmsserving_session_mindspore.so"
BACKEND_RUN = "backend run"
BUILD_COMMAND = "python -m mindspore_serving.build_session"


def find_session_library() -> Path | None:
    """The mindspore session library's file, or None if there is none."""
    return find_library(LIBRARY_NAME)


@cache
def usable_library() -> tuple[Path, SessionLibrary] | None:
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


def choose_way(
    model: LoadedModel, signature: MindIR, device: str, stateful: bool, kernel_threads: int, group: SingleRank
) -> None:
    library = usable_library()
    state = _State(model.cells[0]) if stateful else None
    trial = _try_own_executor(model, state, group)
    if group.all(library is not None) and library is not None and trial is not None:
        for way in ("auto", "run") if device == "CPU" else ("run",):
            options = {"way": way, **_version_option()}
            if kernel_threads > 0 and device == "CPU":
                options["kernel_threads"] = str(kernel_threads)
            problem = _try_session(model, library[1], options, trial, state, group)
            if not problem:
                options = {"phases": model.phases, **options}
                one_thread = kernel_threads == 1 or (kernel_threads == 0 and one_thread_is_possible())
                can_fuse = way == "auto" and model.way != BACKEND_RUN and group.size == 1 and not stateful
                if can_fuse and one_thread:
                    _choose_fusion(model, signature, library[1], options, trial, 1)
                if kernel_threads == 0 and device == "CPU" and not stateful:
                    options["kernel_threads"] = str(
                        choose_kernel_threads(library[1], options, trial.inputs, group=group)
                    )
                threads = int(options.get("kernel_threads", 0))
                if can_fuse and threads > 1:
                    _choose_fusion(model, signature, library[1], options, trial, threads)
                if "fuse" in options:
                    with library[1].open(options) as session:
                        model.way = session.way
                model.session_library = library[0]
                model.session_options = options
                _name_outputs(model, signature)
                return
            logger.warning("%s: cannot be run as '%s': %s", model.model_file, way, problem)
    model.way = PYTHON_EXECUTOR
    if trial is None:
        raise RuntimeError(f"Load model failed, {model.model_file}: MindSpore runs it with no inputs that were tried")
    if not model.outputs:
        model.outputs = [TensorInfo("", WIRE_DTYPES[array.dtype], array.shape) for array in trial.outputs]
    _check_python_buckets(model, trial, group)
    _name_outputs(model, signature)


def _choose_fusion(
    model: LoadedModel,
    signature: MindIR,
    library: SessionLibrary,
    options: dict[str, str],
    trial: _Trial,
    kernel_threads: int,
) -> None:
    for name in ("fuse", "winograd"):
        options.pop(name, None)
    if FUSABLE_OPERATORS.isdisjoint(signature.operators):
        return
    chosen = choose_fusion(
        model.model_file,
        library,
        options,
        model.batch_sizes or [0],
        lambda size: _rows(model, trial.inputs, size),
        lambda size, outputs: difference([_first_rows(model, o, size) for o in trial.outputs], outputs),
        kernel_threads,
    )
    options.update(chosen)


def _first_rows(model: LoadedModel, output: np.ndarray, size: int) -> np.ndarray:
    return output if size in (0, model.batch_size) else output[:size]


def _try_own_executor(model: LoadedModel, state: "_State | None", group: SingleRank) -> _Trial | None:
    phase = model.compiled[max(model.batch_size, 0)]
    for inputs in trial_inputs(model.inputs):
        outputs: list[np.ndarray] | None = None
        try:
            outputs = _mindspore.execute(phase, inputs)
        except Exception as error:
            logger.warning("%s: does not run with random inputs: %s", model.model_file, _mindspore.shorten(error))
        finally:
            if state is not None:
                state.restore()
        if not group.all(outputs is not None) or outputs is None:
            continue
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


_OTHER_RANK = "another rank cannot"


def _try_session(
    model: LoadedModel,
    library: SessionLibrary,
    options: dict[str, str],
    trial: _Trial,
    state: "_State | None",
    group: SingleRank,
) -> str:
    """Why this way does not do; '' if it does. Drops batch sizes that do not agree."""
    session: Session | None = None
    problem = ""
    try:
        session = library.open({"phases": model.phases, **options})
    except RuntimeError as error:
        problem = str(error)
    if not group.all(session is not None) or session is None:
        if session is not None:
            session.close()
        return problem or _OTHER_RANK
    with session:
        problem = _check_session(model, session, trial, state, group)
        if problem:
            return problem
        model.way = session.way
        model.outputs = session.outputs
    return ""


def _check_session(
    model: LoadedModel, session: Session, trial: _Trial, state: "_State | None", group: SingleRank
) -> str:
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
        worst = group.largest(0 if not problem else 1 if "values" in problem else 2)
        if worst > 0:
            problem = problem or _OTHER_RANK
            if own_size:
                return "" if worst == 1 and _is_random(model, trial, state, group) else problem
            model.drop_batch_size(size, f"it disagrees with the model's own batch size: {problem}")
    return ""


def _check_python_buckets(model: LoadedModel, trial: _Trial, group: SingleRank) -> None:
    for size in [kept for kept in model.batch_sizes if kept != model.batch_size]:
        try:
            outputs = model.python_run(_rows(model, trial.inputs, size))
            problem = difference([output[:size] for output in trial.outputs], outputs)
        except RuntimeError as error:
            problem = str(error)
        if group.any(problem != ""):
            model.drop_batch_size(size, f"it disagrees with the model's own batch size: {problem or _OTHER_RANK}")


def _rows(model: LoadedModel, inputs: list[np.ndarray], size: int) -> list[np.ndarray]:
    if size in (0, model.batch_size):
        return inputs
    return [array if index in model.without_batch else array[:size] for index, array in enumerate(inputs)]


def _is_random(model: LoadedModel, trial: _Trial, state: "_State | None", group: SingleRank) -> bool:
    """MindSpore's own executor does not agree with itself either: the values cannot be compared."""
    again = _mindspore.execute(model.compiled[max(model.batch_size, 0)], trial.inputs)
    if state is not None:
        state.restore()
    if not group.any(difference(trial.outputs, again) != ""):
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


def replays(model: LoadedModel) -> bool:
    library = usable_library()
    if library is None:
        return False
    try:
        library[1].open({"phases": model.phases, "way": "replay", **_version_option()}).close()
    except RuntimeError:
        return False
    return True


def _version_option() -> dict[str, str]:
    return {"mindspore_version": str(_mindspore.import_mindspore().__version__)}
