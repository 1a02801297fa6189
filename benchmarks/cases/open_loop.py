"""Latency at fixed rates: requests leave by the clock, whatever the server does, and a request's time counts from when
it was due. A server that stalls is not spared the requests that would have come meanwhile (coordinated omission)."""

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from cases.serving import TARGET, sum_instances
from harness import messages
from harness.case import FigureCase, Outcome, Target
from harness.load import GRACE_SECONDS, LOAD_CORE, LoadError, load_generator

SERVABLE = "addb"
CONNECTIONS = 16
IN_FLIGHT = 64  # of the closed loop that finds the peak
SHARES = (25, 50, 75)  # % of the peak
COLUMNS = (  # part of the case's name, title, unit, key of what the generator prints
    ("p50", "p50", "µs", "accepted_p50_us"),
    ("p99", "p99", "µs", "accepted_p99_us"),
    ("p999", "p99.9", "µs", "accepted_p999_us"),
    ("refused", "refused", "%", "refused_share"),
)


class OpenLoop:
    """The peak and one run at each share of it, when the first figure of a repetition is asked for."""

    def __init__(self, build: Path, work: Path, get_target: Callable[[str], Target], seconds: int) -> None:
        self._generator = load_generator(build)
        self._body = work / "open_loop.bin"
        self._get_target = get_target
        self._seconds = seconds
        self._runs: dict[int, dict[str, float]] = {}

    def measure_peak(self) -> float:
        target = self._get_target(TARGET)
        instances, expected = sum_instances(1)
        message = messages.predict_message(SERVABLE, "predict", instances)
        reply_bytes = messages.checked_grpc(target.grpc_address, message, expected)
        self._body.write_bytes(messages.grpc_body(message))
        port = target.grpc_address.rpartition(":")[2]
        peak = self._run(port, reply_bytes, "--in-flight", str(IN_FLIGHT))["goodput"]
        for share in SHARES:
            self._runs[share] = self._run(port, reply_bytes, "--rate", f"{peak * share / 100:.0f}")
        return peak

    def _run(self, port: str, reply_bytes: int, *arguments: str) -> dict[str, float]:
        command = ["taskset", "-c", str(LOAD_CORE), str(self._generator), "--port", port, "--body", str(self._body)]
        command += ["--reply-bytes", str(reply_bytes), "--seconds", str(self._seconds)]
        command += ["--connections", str(CONNECTIONS), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=self._seconds + GRACE_SECONDS + 30)
        if done.returncode:
            raise LoadError(f"load_generator ended with {done.returncode}:\n{done.stderr}")
        figures: dict[str, float] = json.loads(done.stdout)
        if figures["unanswered"]:
            raise LoadError(f"not every request was answered: {done.stdout}")
        figures["refused_share"] = 100 * figures["refused"] / figures["sent"]
        return figures

    def figure(self, share: int, name: str) -> Callable[[], float]:
        return lambda: self._runs[share][name]

    def cases(self) -> list[FigureCase]:
        listed = [FigureCase("open-peak", f"{SERVABLE}, closed loop, {IN_FLIGHT} in flight", "req/s",
                             self.measure_peak)]  # fmt: skip
        for share in SHARES:
            for name, title, unit, figure in COLUMNS:
                listed.append(
                    FigureCase(f"open-{share}-{name}", f"{SERVABLE}, {title} at {share} % of that, open loop", unit,
                               self.figure(share, figure))
                )  # fmt: skip
        return listed


def table(outcomes: Mapping[str, Outcome]) -> list[list[str]]:
    """A line for each rate: the rate, latencies in µs, and what was refused. Empty if the cases did not run."""
    peak = outcomes.get("open-peak")
    if peak is None or not peak.figures:
        return []
    lines = [[f"{SERVABLE} at a fixed rate", "req/s", *(f"{title}, {unit}" for _, title, unit, _ in COLUMNS)]]
    for share in SHARES:
        found = [outcomes[case] for name, *_ in COLUMNS if (case := f"open-{share}-{name}") in outcomes]
        if len(found) == len(COLUMNS) and all(one.figures for one in found):
            rate = f"{peak.figure * share / 100:,.0f}"
            figures = [f"{one.figure:,.0f}" if one.figure >= 100 else f"{one.figure:.1f}" for one in found]
            lines.append([f"{share} % of the peak", rate, *figures])
    return lines


def cases(build: Path, work: Path, get_target: Callable[[str], Target], seconds: int) -> list[FigureCase]:
    return OpenLoop(build, work, get_target, seconds).cases()
