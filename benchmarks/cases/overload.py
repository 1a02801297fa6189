"""More than can be answered: what is left of the peak at twice and ten times as much, and how long the accepted take.

The servable `busy` takes a millisecond of the processor for an instance, so that ten times its peak can be offered. The
peak is found by a closed loop (64 in flight); then load/load_generator.cc sends by the clock, with a
deadline of one second.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from harness import messages
from harness.case import FigureCase
from harness.load import LOAD_CORE, LoadError, load_generator
from harness.targets import ServingTarget, run_seconds

DEADLINE_MS = 1000
IN_FLIGHT = 64
WARM_UP = 1  # seconds
FACTORS = (1, 2, 10)


class Overload:
    """One round, when the first of its figures is asked for; the others of that repetition read it."""

    def __init__(self, build: Path, work: Path, env: dict[str, str], seconds: int) -> None:
        self._generator = load_generator(build)
        self._work = work
        self._env = {**env, "BENCH_SERVABLES": "busy"}
        self._seconds = seconds
        self._peak = 0.0
        self._loads: dict[int, dict[str, float]] = {}

    def measure_peak(self) -> float:
        script = Path(__file__).parents[1] / "server.py"
        inputs = [{"x": np.random.default_rng(1).random((2, 2), np.float32)}]
        with ServingTarget(script, self._work, self._env) as target:
            message = messages.predict_message("busy", "predict", inputs)
            reply_bytes = messages.checked_grpc(target.grpc_address, message, [{"y": inputs[0]["x"]}])
            (self._work / "busy.bin").write_bytes(messages.grpc_body(message))

            def run(*arguments: str) -> dict[str, float]:
                before = run_seconds([target.pid])
                figures = self._run(target.grpc_address.rpartition(":")[2], reply_bytes, arguments)
                return {**figures, "server_cpu_us": 1e6 * (run_seconds([target.pid]) - before)}

            self._peak = run("--in-flight", str(IN_FLIGHT))["goodput"]
            for factor in FACTORS:
                rate = f"{factor * self._peak:.0f}"
                self._loads[factor] = run("--rate", rate, "--deadline-ms", str(DEADLINE_MS))
        for factor, load in self._loads.items():
            print(f"  overload, {factor}x of {self._peak:.0f}/s: {json.dumps(load)}", file=sys.stderr)
        return self._peak

    def _run(self, port: str, reply_bytes: int, arguments: tuple[str, ...]) -> dict[str, float]:
        command = ["taskset", "-c", str(LOAD_CORE), str(self._generator), "--port", port]
        command += ["--body", str(self._work / "busy.bin"), "--reply-bytes", str(reply_bytes)]
        command += ["--seconds", str(self._seconds), "--warm-up", str(WARM_UP), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=self._seconds + 60)
        if done.returncode:
            raise LoadError(f"load_generator ended with {done.returncode}:\n{done.stderr}")
        figures: dict[str, float] = json.loads(done.stdout)
        if figures["unanswered"]:
            raise LoadError(f"requests were not answered: {done.stdout}")
        return figures

    def share(self, factor: int) -> Callable[[], float]:
        return lambda: 100 * self._loads[factor]["goodput"] / self._peak

    def figure(self, factor: int, name: str) -> Callable[[], float]:
        return lambda: self._loads[factor][name] / 1000

    def refusal_us(self) -> float:
        """The server process's time for a refused request: what 10 x takes beyond 1 x."""
        refused = self._loads[10]["refused"] * (self._seconds + WARM_UP) / self._seconds
        return (self._loads[10]["server_cpu_us"] - self._loads[1]["server_cpu_us"]) / max(refused, 1)

    def cases(self) -> list[FigureCase]:
        return [
            FigureCase("overload-peak", "busy, closed loop, 64 in flight", "req/s", self.measure_peak),
            FigureCase("overload-2x", "goodput at 2 x the peak", "% of peak", self.share(2), goal="≥ 90 %"),
            FigureCase("overload-10x", "goodput at 10 x the peak", "% of peak", self.share(10), goal="≥ 90 %"),
            FigureCase("overload-p99", "p99 of the accepted at 10 x", "ms", self.figure(10, "accepted_p99_us"),
                       goal="≤ the deadline, 1000 ms"),
            FigureCase("overload-no", "p99 of the refused at 10 x", "ms", self.figure(10, "refused_p99_us")),
            FigureCase("overload-cpu", "server's processor time for a refused one", "µs", self.refusal_us),
        ]  # fmt: skip


def cases(build: Path, work: Path, env: dict[str, str], seconds: int) -> list[FigureCase]:
    return Overload(build, work, env, seconds).cases()
