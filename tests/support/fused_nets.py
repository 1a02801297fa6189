"""Nets of layers that may be fused, and sessions with and without: what tests of fused steps share."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from mindspore_serving.worker import _mindspore
from mindspore_serving.worker.agreement import difference
from mindspore_serving.worker.session_library import Session, SessionLibrary

ms: Any = _mindspore.import_mindspore()
from mindspore import Tensor, nn  # noqa: E402

_FUSED = re.compile(
    r"kernel replay(, (?:(\d+) convolutions?)?(?: and )?(?:(\d+) dense layers?)? fused)?"
    r"(, \d+ of them by Winograd's method)?"
)


def norm(channels: int) -> Any:
    """A batch normalization with numbers of its own, as after training."""
    random = np.random.default_rng(channels)
    made = nn.BatchNorm2d(channels)
    for parameter, low, high in (
        (made.gamma, 0.5, 2),
        (made.beta, -1, 1),
        (made.moving_mean, -1, 1),
        (made.moving_variance, 0.2, 3),
    ):
        parameter.set_data(Tensor(random.uniform(low, high, channels).astype(np.float32)))
    return made


class Chain(nn.Cell):
    """A convolution and what follows it."""

    def __init__(self, *cells: Any):
        super().__init__()
        self.layers = nn.SequentialCell(*cells)

    def construct(self, x):
        return self.layers(x)


def export(path: Path, net: Any, *shapes: tuple[int, ...]) -> str:
    net.set_train(False)
    tensors = [Tensor(np.zeros(shape, np.float32)) for shape in shapes]
    ms.export(net, *tensors, file_name=str(path / "model.mindir"), file_format="MINDIR")
    return str(path / "model.mindir")


def opened(library: SessionLibrary, model: Any, fuse: str = "all", **options: str) -> Session:
    return library.open({**model.session_options, "kernel_threads": "1", **options, "fuse": fuse})


def fused_counts(session: Session) -> tuple[int, int]:
    """How many convolutions and dense layers run fused."""
    match = _FUSED.fullmatch(session.way)
    assert match is not None, session.way
    return int(match[2] or 0), int(match[3] or 0)


def fused_convolutions(session: Session) -> int:
    return fused_counts(session)[0]


def check_all_sizes(model: Any, inputs: list[np.ndarray], fused: Session, plain: Session) -> None:
    """For each batch size: what MindSpore computes, with and without the runtime, and the same each time."""
    first: dict[int, list[np.ndarray]] = {}
    for size in [*model.batch_sizes, *model.batch_sizes[::-1]]:
        rows = [array[:size] for array in inputs]
        outputs = [output.copy() for output in fused.run(rows)]
        assert difference(model.python_run(rows), outputs) == ""
        assert difference(plain.run(rows), outputs) == ""
        for before, now in zip(first.setdefault(size, outputs), outputs, strict=True):
            np.testing.assert_array_equal(before, now)
