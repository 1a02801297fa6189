"""Loads a model file for a worker: reads what it is, compiles it for its batch sizes, chooses its way (way.py)."""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindspore_serving.worker import _mindspore
from mindspore_serving.worker.loaded_model import LoadedModel
from mindspore_serving.worker.mindir import MindIR, parse_mindir
from mindspore_serving.worker.rank_group import SingleRank
from mindspore_serving.worker.session_library import NUMPY_DTYPES
from mindspore_serving.worker.way import choose_way, replays

__all__ = ["LoadedModel", "load_model"]

logger = logging.getLogger("mindspore_serving.worker")

# Larger models are not loaded once more for each batch size.
_LARGE_FILE = 16 << 20

# Operators that change a parameter: such a model is run for its own batch size alone, and its parameters are put back
# after the check.
_STATEFUL = re.compile(r"^(Assign|Scatter|Apply|Sparse|Fused|Momentum|Adam|Push|Pull|Random|Multinomial|Dropout)")

# Operators that exchange tensors of one certain shape with another rank: a batch size cannot be changed on one side.
_FIXED_SHAPE = {"Send", "Receive", "NeighborExchange", "NeighborExchangeV2"}


def load_model(
    model_file: str,
    *,
    with_batch_dim: bool,
    without_batch_dim_inputs: tuple[int, ...] = (),
    decrypt: Callable[[str], bytes] | None = None,
    device_type: str | None = None,
    device_id: int = 0,
    max_buckets: int = 6,
    compile_budget_s: float = 0.25,
    kernel_threads: int = 0,
    on_device: Callable[[str], None] = lambda device: None,
    group: SingleRank | None = None,
) -> LoadedModel:
    """Load, compile and check a MindIR.

    Args:
        model_file: The MindIR.
        with_batch_dim: The leading dimension of its inputs and outputs is the batch.
        without_batch_dim_inputs: Positions of inputs that have none all the same.
        decrypt: Gives the content of an encrypted file from its path.
        device_type: "CPU", "Ascend", "GPU" or None for MindSpore's own choice.
        device_id: Which of them.
        max_buckets: The most batch sizes to compile it for. 1 and its own are always among them.
        compile_budget_s: Stop adding batch sizes when compiling has taken this much processor time.
        kernel_threads: Threads among which a kernel may split its work; 0: what is fastest
            here, measured.
        on_device: Called with the device, as MindSpore spells it, before anything is compiled for it.
        group: The ranks of a distributed model, each of which loads its part at the same time; None: the model is of
            this process alone.

    Raises:
        RuntimeError: The file cannot be served, for the reason told. Other ranks of a group do not hear of it: this
            process must end.
    """
    path = Path(model_file)
    group = group or SingleRank()
    source = _Source(path, decrypt)
    signature = source.read_signature()
    group.check_collectives(str(path), signature.sized_collectives)
    _mindspore.avoid_slow_convolutions(signature.operators)
    device = _mindspore.set_device(device_type, device_id)
    on_device(device)
    model = LoadedModel(str(path), signature.inputs, without_batch=without_batch_dim_inputs)
    if model.inputs or group.size == 1:  # later stages of a pipeline may have no inputs
        model.find_batch_size(with_batch_dim)
    _agree_on_batch_size(model, group)
    stateful = group.any(any(_STATEFUL.match(name) for name in signature.operators))
    one_size = group.any(stateful or not model.inputs or not _FIXED_SHAPE.isdisjoint(signature.operators))
    _compile(model, source, 1 if one_size else max_buckets, compile_budget_s, group)
    choose_way(model, signature, device, stateful, kernel_threads, group)
    logger.info("%s: %s%s", path, model.way, f", batch sizes {model.batch_sizes}" if model.batch_sizes else "")
    return model


@dataclass
class _Source:
    """A model file and how to read it."""

    path: Path
    decrypt: Callable[[str], bytes] | None
    is_large: bool = False  # too large to be loaded once for each batch size

    def read_signature(self) -> MindIR:
        try:
            if self.decrypt is None:
                content = self.path.read_bytes()
            else:
                content = self.decrypt(str(self.path))
            self.is_large = len(content) > _LARGE_FILE
            return parse_mindir(memoryview(content))
        except OSError as error:
            raise RuntimeError(f"Load model failed, {self.path}: {error.strerror}") from error
        except Exception as error:
            reason = _mindspore.shorten(error)
            if self.decrypt is None:
                reason += "; if it is encrypted, give its dec_key"
            else:
                reason += "; are dec_key and dec_mode those that it was encrypted with?"
            raise RuntimeError(f"Load model failed, {self.path}: {reason}") from error

    def load(self) -> Any:
        return _mindspore.load_graph_cell(self.path, self.decrypt)


def _agree_on_batch_size(model: LoadedModel, group: SingleRank) -> None:
    no_inputs = -2
    sizes = [int(size) for size in group.gather(model.batch_size if model.inputs else no_inputs)]
    if len(set(sizes) - {no_inputs}) > 1:
        text = ", ".join(f"rank {rank}: {size}" for rank, size in enumerate(sizes) if size != no_inputs)
        raise RuntimeError(
            f"Load model failed, {model.model_file}: the ranks' models have different batch sizes ({text})"
        )


def _bucket_sizes(batch_size: int, most: int) -> list[int]:
    """Powers of two below the batch size and itself; evenly thinned out if they are too many."""
    sizes = [1 << power for power in range(batch_size.bit_length()) if 1 << power < batch_size] + [batch_size]
    most = max(most, 2)
    if len(sizes) > most:
        sizes = [sizes[round(i * (len(sizes) - 1) / (most - 1))] for i in range(most)]
    return sizes


def _compile(model: LoadedModel, source: "_Source", max_buckets: int, budget_s: float, group: SingleRank) -> None:
    start = time.process_time()  # of this process: other programs' load must not cost batch sizes
    own = max(model.batch_size, 0)
    try:
        model.cells.append(source.load())
    except Exception as error:
        raise RuntimeError(f"Load model failed, {model.model_file}: {_mindspore.shorten(error)}") from error
    try:
        model.compiled[own] = _compile_for(model, own)
    except Exception as error:
        raise RuntimeError(
            f"Load model failed, {model.model_file}: MindSpore does not compile it: {_mindspore.shorten(error)}"
        ) from error
    for size in _further_buckets(model, source, max_buckets, group):
        if size != 1 and group.any(time.process_time() - start > budget_s):
            logger.info("%s: not compiled for batch size %d and below: it takes too long", model.model_file, size)
            break
        problem = ""
        try:
            # A graph keeps what MindSpore folded into it for the shapes it was compiled for: each size has its own.
            if not source.is_large:
                model.cells.append(source.load())
            model.compiled[size] = _compile_for(model, size)
        except Exception as error:
            problem = f"it does not compile: {_mindspore.shorten(error)}"
        if group.any(problem != ""):
            model.drop_batch_size(size, problem or "it does not compile on another rank")
    if own:
        model.batch_sizes = sorted(model.compiled)


def _further_buckets(model: LoadedModel, source: "_Source", most: int, group: SingleRank) -> list[int]:
    """1, then from large to small: what saves most padding first."""
    source.is_large = group.any(source.is_large)
    sizes = _bucket_sizes(model.batch_size, most)[:-1] if most > 1 and model.batch_size > 0 else []
    if not source.is_large:
        return sizes[:1] + sizes[:0:-1]
    # A copy of its weights for each size is too much. Compiling the same graph again is safe where nothing but the
    # kernels of a phase is used afterwards.
    return sizes[:1] if sizes and group.all(replays(model)) else []


def _compile_for(model: LoadedModel, size: int) -> str:
    shapes: list[list[int | None] | None] = []
    for index, info in enumerate(model.inputs):
        if info.dims is None:
            shapes.append(None)
            continue
        dims = list(info.dims)
        if size > 0 and index not in model.without_batch:
            dims[0] = size
        shapes.append([None if dim < 0 else dim for dim in dims])
    return _mindspore.compile_cell(model.cells[-1], shapes, [NUMPY_DTYPES[info.dtype] for info in model.inputs])
