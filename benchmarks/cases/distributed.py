"""What our part of a distributed servable costs: two ranks with an AllReduce, on this machine, one request at a time.

Against the same graph run by the same two ranks in a bare loop. Everything uses all cores, as the collective wakes
processes on both; so the figures move with whatever else the machine does.

A model of two stages of some milliseconds each is measured with `enable_pipeline_infer` and without.
"""

import functools
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from cases.serving import grpc_load
from export_rank_models import WEIGHT
from export_stages import BATCH as STAGE_BATCH
from export_stages import WIDTH as STAGE_WIDTH
from harness.case import FigureCase, LoadCase, Target
from harness.load import Shape
from harness.targets import cpu_seconds
from rank_servable import RankServable
from ranks import run_ranks

ROOT = Path(__file__).resolve().parents[2]
BARE_RUNS = 5000


@functools.cache
def _models(work: Path) -> Path:
    """The ranks' parts of the model, exported once."""
    folder = work / "rank_models"
    script = ROOT / "tests" / "support" / "export_rank_models.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True, timeout=300)
    return folder


@functools.cache
def _stages(work: Path) -> Path:
    folder = work / "rank_stages"
    script = ROOT / "benchmarks" / "export_stages.py"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True, timeout=300)
    return folder


class RanksTarget:
    """Server, launcher and ranks; processor time is that of all of them.

    Args:
        work: Where files go.
        model: Gives the folder of the ranks' models, and the beginning of their names.
        declared: Further arguments of declare_servable.
    """

    def __init__(
        self, work: Path, model: Callable[[Path], tuple[Path, str]], declared: Mapping[str, object] = {}
    ) -> None:
        self._work = work
        self._model = model
        self._declared = declared

    def __enter__(self) -> "RanksTarget":
        folder = self._work / "distributed"
        shutil.rmtree(folder, ignore_errors=True)
        models, name = self._model(self._work)
        self._servable = RankServable(folder, declared=self._declared)
        try:
            self._servable.start_server()
            self._servable.start_launcher([models / f"{name}_{rank}.mindir" for rank in range(2)])
            self._servable.wait_ready()
        except BaseException:
            self._servable.kill()
            raise
        self.grpc_address = self._servable.server.grpc_address
        self.rest_address = self._servable.server.rest_address
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._servable.stop()
        finally:
            self._servable.kill()

    def cpu_seconds(self) -> float:
        return cpu_seconds(self._servable.pids())


def targets(work: Path) -> dict[str, Callable[[], AbstractContextManager[Target]]]:
    def staged(pipeline: bool) -> RanksTarget:
        declared = {"stage_size": 2, "enable_pipeline_infer": pipeline}
        return RanksTarget(work, lambda work: (_stages(work), "stages"), declared)

    return {
        "ranks": lambda: RanksTarget(work, lambda work: (_models(work), "rows2")),
        "stages": lambda: staged(pipeline=False),
        "stages-pipeline": lambda: staged(pipeline=True),
    }


def cases(work: Path) -> list[FigureCase | LoadCase]:
    def bare() -> float:
        models = _models(work)
        folder = work / "bare_ranks"
        folder.mkdir(exist_ok=True)
        script = Path(shutil.copy(ROOT / "benchmarks" / "bare_ranks.py", folder))
        printed = run_ranks(script, 2, str(models), "rows2", str(BARE_RUNS))
        return float(printed[-1].strip().splitlines()[-1])

    row = np.ones(WEIGHT.shape[0], np.float32)
    one = [{"x": row}], [{"y": row @ WEIGHT}]
    sixteen = one[0] * 16, one[1] * 16
    staged_row = np.ones(STAGE_WIDTH, np.float32)
    full = [{"x": staged_row}] * STAGE_BATCH, [{"y": staged_row}] * STAGE_BATCH
    return [
        FigureCase("distributed-bare", "2 ranks, bare AllReduce run, p50", "µs", bare),
        LoadCase("distributed-1x1", "2 ranks, gRPC, one connection", "ranks",
                 grpc_load("ranks", "predict", Shape(1), one), goal="p50: bare + 150 µs"),
        LoadCase("distributed-64x1", "2 ranks, gRPC 64x1", "ranks", grpc_load("ranks", "predict", Shape(64), one)),
        LoadCase("distributed-batch", "2 ranks, 16 instances a request, 16x1", "ranks",
                 grpc_load("ranks", "predict", Shape(16), sixteen), units=16, unit="instances/s"),
        *(
            LoadCase(f"distributed-{target}", f"2 stages{text}, full batches, 4x1", target,
                     grpc_load("ranks", "predict", Shape(4), full))
            for target, text in (("stages", ""), ("stages-pipeline", ", enable_pipeline_infer"))
        ),
    ]  # fmt: skip
