"""MindSpore in a worker process: imported once, set up once, its private parts touched in this file alone."""

import ctypes
import gc
import logging
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mindspore import Tensor
    from mindspore.nn import GraphCell

logger = logging.getLogger("mindspore_serving.worker")

REQUIREMENT = "mindspore>=2.10,<2.11"  # as in pyproject.toml


@cache
def import_mindspore() -> Any:
    """Import MindSpore and set it up for running graphs on the CPU.

    Its warnings are silenced unless GLOG_v asks for them.

    Raises:
        RuntimeError: MindSpore is not installed, or does not import.
    """
    # Only while it is imported, which is when MindSpore reads it: our own log reads the same variable.
    silenced = os.environ.setdefault("GLOG_v", "") == ""
    if silenced:
        os.environ["GLOG_v"] = "3"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import mindspore
        except Exception as error:
            raise RuntimeError(
                f"MindSpore cannot be imported: {error}. Install the release that this package is made for beside it: "
                f"pip install '{REQUIREMENT}'"
            ) from error
        finally:
            if silenced:
                del os.environ["GLOG_v"]
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    # Every compile begins with a full garbage collection: without the modules loaded so far it is a tenth of the time.
    gc.collect()
    gc.freeze()
    return mindspore


@cache
def set_device(device_type: str | None, device_id: int) -> str:
    """Choose the device that graphs run on.

    Args:
        device_type: "CPU", "Ascend", "GPU" or None for MindSpore's own choice, in any case.
        device_id: Which of them; a CPU has one.

    Returns:
        The device, as MindSpore spells it.

    Raises:
        RuntimeError: MindSpore does not run on this device here.
    """
    mindspore = import_mindspore()
    name = {"cpu": "CPU", "gpu": "GPU", "ascend": "Ascend"}.get((device_type or "").lower(), device_type)
    if not name:
        name = mindspore.get_context("device_target")
    try:
        mindspore.set_device(name, *([] if name == "CPU" else [device_id]))
    except Exception as error:
        raise RuntimeError(
            f"device_type '{device_type}' is inconsistent with current running environment: "
            f"{shorten(error).rstrip('.')}{_what_is_missing(name)}"
        ) from error
    # One dispatching thread: a second one only fights with the kernels for the cores.
    mindspore.runtime.dispatch_threads_num(1)
    return str(name)


def _what_is_missing(device: str) -> str:
    if device != "Ascend":
        return ""
    try:
        ctypes.CDLL("libascendcl.so")
    except OSError as error:
        return (
            f". Ascend's runtime is not found ({error}): install Ascend's driver and CANN, and run its set_env.sh in "
            "the shell that starts the server"
        )
    return ". Ascend's runtime is there (libascendcl.so): is this MindSpore made for its CANN release?"


def set_ascend_options(precision_mode: str | None, graph_engine: Mapping[str, Mapping[str, str]]) -> None:
    """Set what holds for every graph that this process compiles for Ascend. Once, before the first is compiled.

    Args:
        precision_mode: How operators of float32 may be run; None leaves it as it is.
        graph_engine: Options of CANN's graph engine: for "global" and "session", names and values.

    Raises:
        RuntimeError: MindSpore refuses an option.
    """
    mindspore = import_mindspore()
    try:
        if precision_mode is not None:
            mindspore.device_context.ascend.op_precision.precision_mode(precision_mode)
        if graph_engine:
            mindspore.set_context(
                ascend_config={"ge_options": {level: dict(options) for level, options in graph_engine.items()}}
            )
    except Exception as error:
        raise RuntimeError(f"MindSpore refuses an option for Ascend: {shorten(error)}") from error


def avoid_slow_convolutions(operators: set[str]) -> None:
    """Keep oneDNN away from AVX-512 for a model with convolutions.

    MindSpore hands a convolution's weights to oneDNN in plain layout. With AVX-512, oneDNN has no fast kernel for that
    and takes its reference implementation, some forty times slower than what it takes with AVX2. oneDNN reads this
    setting once, before its first kernel is made.
    """
    setting = "ONEDNN_MAX_CPU_ISA"
    if setting in os.environ or "DNNL_MAX_CPU_ISA" in os.environ:
        return
    if any("Conv" in name for name in operators) and "avx512f" in _cpu_flags():
        os.environ[setting] = "AVX2"
        logger.info("%s=AVX2 is set: oneDNN's AVX-512 convolutions are slow for MindSpore's layout", setting)


@cache
def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return frozenset()
    return frozenset(next((line for line in text.splitlines() if line.startswith("flags")), "").split())


def load_graph_cell(model_file: Path, decrypt: Callable[[str], bytes] | None) -> "GraphCell":
    """Load a MindIR as a cell that can be compiled.

    Args:
        model_file: The file.
        decrypt: Gives the content of an encrypted file. MindSpore is handed this instead of the key, of which it would
            leave copies in its memory.
    """
    mindspore = import_mindspore()
    options: dict[str, Any] = {}
    if decrypt is not None:
        options = {"dec_key": bytes(16), "dec_mode": lambda _file, _key: decrypt(str(model_file))}
    cell = mindspore.nn.GraphCell(mindspore.load(str(model_file), **options))
    # As GraphCell.__call__ does before it compiles.
    cell.phase = "graph_load_from_mindir"
    cell._add_attr("graph_load_from_mindir", cell.graph)
    return cell


def compile_cell(
    cell: "GraphCell", shapes: Sequence[Sequence[int | None] | None], dtypes: Sequence[np.dtype[Any]]
) -> str:
    """Compile a cell for these input shapes (None: a dynamic dimension or rank), without any data.

    Returns:
        The phase: what MindSpore's graph executor calls the result. It lives as long as the cell.
    """
    mindspore = import_mindspore()
    arguments = [
        mindspore.Tensor(shape=None if shape is None else list(shape), dtype=_dtype(dtype))
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]
    cell.compile(*arguments)
    return str(cell.compile_phase)


def _dtype(dtype: np.dtype[Any]) -> Any:
    mindspore = import_mindspore()
    return getattr(mindspore, "bool_" if dtype == np.bool_ else dtype.name)


def execute(phase: str, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Run a compiled phase through MindSpore's own executor; tuples of outputs are flattened."""
    mindspore = import_mindspore()
    from mindspore.graph.api import _cell_graph_executor

    result = _cell_graph_executor._graph_executor(tuple(mindspore.Tensor(array) for array in inputs), phase)
    outputs: list[np.ndarray] = []
    _flatten(result, outputs)
    return outputs


def _flatten(value: Any, outputs: list[np.ndarray]) -> None:
    if isinstance(value, (tuple, list)):
        for element in value:
            _flatten(element, outputs)
    elif hasattr(value, "asnumpy"):
        outputs.append(value.asnumpy())
    else:
        outputs.append(_number(value))


def _number(value: Any) -> np.ndarray:
    if not isinstance(value, (bool, int, float)):
        raise RuntimeError(f"the model returned a {type(value).__name__}, which cannot be served")
    return np.asarray(value)


def parameters(cell: "GraphCell") -> "list[Tensor]":
    """A cell's weights."""
    return list(cell._params.values())


def shorten(error: BaseException, most: int = 400) -> str:
    """MindSpore's reason without the banners and call stacks that it puts behind it."""
    text = str(error).strip()
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith("-----") or "C++ Call Stack" in line or "The Traceback of Net Construct" in line:
            break
        if line.strip():
            lines.append(line.strip())
    text = " ".join(lines) or type(error).__name__
    return text if len(text) <= most else text[:most] + " ..."
