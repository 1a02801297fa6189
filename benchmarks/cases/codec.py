"""Single parts of the hot path, measured in their own programs (micro/)."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from harness.case import FigureCase
from harness.targets import SERVER_CORE

ROW = 784


def _json_row(build: Path) -> Callable[[], float]:
    """CPU µs to read a row of floats from JSON and to write one."""

    def measure() -> float:
        program = build / "benchmarks" / "json_bench"
        if not program.is_file():
            raise RuntimeError(f"{program} is not built: run it through ./dev bench")
        command = ["taskset", "-c", str(SERVER_CORE), str(program), "--benchmark_format=json"]
        command += [f"--benchmark_filter=^(ParseRow|WriteRow)/{ROW}$", "--benchmark_min_time=0.3"]
        command += ["--benchmark_repetitions=5"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"json_bench ended with {done.returncode}:\n{done.stderr}")
        runs = [run for run in json.loads(done.stdout)["benchmarks"] if run["run_type"] == "iteration"]
        names = {run["name"] for run in runs}
        assert len(names) == 2, f"two benchmarks were expected, not {names}"
        return sum(min(run["cpu_time"] for run in runs if run["name"] == name) for name in names) / 1000

    return measure


def cases(build: Path) -> list[FigureCase]:
    return [
        FigureCase("json-row", f"JSON, {ROW} floats read and written", "µs CPU", _json_row(build), goal="≤ 15 µs"),
    ]
