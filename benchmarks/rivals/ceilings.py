"""What no server can pass: the model alone, without one, and the memory of the machine."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.targets import SERVER_CORE
from rivals.rival import FOLDER

_MEMCPY_BYTES = 4 << 20
# The MindSpore models of each work, and the batch dimension that they were exported with (0: none). Their times add up;
# Python stages beside them are not in it.
_SESSIONS = {
    "add": (("add",), 0), "addb": (("addb",), 32), "mlp": (("mlp",), 32), "lenet": (("lenet",), 32),
    "prepost": (("mlp",), 32), "pipeline": (("embed", "mix", "head"), 32), "resnet50": (("resnet50",), 1),
    "big": (("big",), 0),
}  # fmt: skip


@dataclass
class Ceilings:
    sessions: dict[str, float] = field(default_factory=dict)  # work -> instances a second, MindSpore's bare session
    one_row_us: dict[str, float] = field(default_factory=dict)  # work -> what a run of that with one instance takes
    functions: dict[str, float] = field(default_factory=dict)  # the same of the functions that the others run
    memcpy_mb_s: float = 0
    errors: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        return dict(self.__dict__)


def _pinned(command: list[str], env: dict[str, str], limit: float) -> str:
    done = subprocess.run(
        ["taskset", "-c", str(SERVER_CORE), *command], capture_output=True, text=True, timeout=limit,
        env={**os.environ, **env}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError((done.stderr.strip() or done.stdout.strip()).splitlines()[-1])
    return done.stdout


def memcpy_mb_s() -> float:
    """Copies of 4 MiB back to back, in MB copied a second."""
    source = np.ones(_MEMCPY_BYTES, np.uint8)
    target = np.zeros_like(source)
    started = time.perf_counter()
    copies = 0
    while time.perf_counter() < started + 0.3:
        np.copyto(target, source)
        copies += 1
    return copies * _MEMCPY_BYTES / 1e6 / (time.perf_counter() - started)


def _run_times(model: Path, build: Path, rows: Sequence[int]) -> list[float]:
    """Of a run with so many rows, in µs."""
    script = FOLDER.parent / "bare_session.py"
    text = _pinned([sys.executable, str(script), str(model), *map(str, rows), "--build", str(build)], {}, 60)
    return [1e6 / float(line) for line in text.splitlines()[-len(rows) :]]


def measure(
    works: Sequence[str], models: Path, build: Path, function_python: Path | None, packages: Sequence[Path]
) -> Ceilings:
    found = Ceilings(memcpy_mb_s=memcpy_mb_s())
    env = {
        "PYTHONPATH": os.pathsep.join(map(str, (FOLDER / "shared", *packages))),
        "RIVALS_MODELS": str(models / "onnx"),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    times: dict[str, list[float]] = {}  # of a model, with a full batch and with one row
    for work in works:
        names, batch = _SESSIONS[work]
        try:
            for name in names:
                if name not in times:
                    times[name] = _run_times(
                        models / "mindir" / f"{name}.mindir", build, [batch, 1] if batch > 1 else [batch]
                    )
            found.sessions[work] = max(1, batch) * 1e6 / sum(times[name][0] for name in names)
            found.one_row_us[work] = sum(times[name][-1] for name in names)
        except (RuntimeError, subprocess.TimeoutExpired, ValueError) as error:
            found.errors[f"session of {work}"] = str(error)
    if function_python is not None:
        try:
            text = _pinned([str(function_python), str(FOLDER / "shared" / "bare_function.py"), "0.4", *works], env, 90)
            found.functions = {name: float(number) for name, number in map(str.split, text.splitlines())}
        except (RuntimeError, subprocess.TimeoutExpired, ValueError) as error:
            found.errors["functions"] = str(error)
    return found
