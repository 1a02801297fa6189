"""One run of load/load_generator.cc against a server, and what it printed."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.load import LOAD_CORE, LoadError, Shape
from rivals.protocols import Request

PATIENCE_SECONDS = 3.0
_MARGIN_SECONDS = 10.0


@dataclass(frozen=True)
class Level:
    """How much is sent: so many in flight (closed loop), or so many a second whatever comes back (open loop)."""

    shape: Shape
    rate: float = 0  # 0: closed loop

    def __str__(self) -> str:
        return f"open {self.rate:,.0f}/s" if self.rate else str(self.shape)


@dataclass(frozen=True)
class Measured:
    """Of one run. Times are those of right answers; in an open loop from when a request was due."""

    requests_s: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    cpu_us: float  # of the server's processes, a right answer
    busy: float  # of the server's core
    generator_busy: float  # of the generator's core: near 1, the generator is what was measured; 0 where it polls
    sent: int
    wrong: int  # errors and answers of another length
    unanswered: int
    errors: dict[str, int]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def polls(level: Level) -> bool:
    """Whether the generator looks for answers without sleeping: where one request is in flight, waking the generator
    would be the larger part of its time."""
    return not level.rate and level.shape.connections * level.shape.streams == 1


def parse(text: str, seconds: float, polling: bool = False) -> Measured:
    figures = json.loads(text)
    if not figures["right"]:
        raise LoadError(f"no right answer came: {figures['errors'] or 'none at all'}")
    return Measured(
        figures["goodput"],
        *(figures[f"accepted_{name}_us"] for name in ("p50", "p90", "p99", "p999", "max")),
        cpu_us=figures["server_cpu_s"] / figures["right"] * 1e6,
        busy=figures["server_cpu_s"] / seconds,
        generator_busy=0.0 if polling else figures["generator_cpu_s"] / seconds,
        sent=figures["sent"],
        wrong=figures["refused"],
        unanswered=figures["unanswered"],
        errors=figures["errors"],
    )


def read_samples(path: Path) -> list[bytes]:
    """The replies that the generator kept."""
    data = path.read_bytes()
    replies = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        replies.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return replies


class LoadGenerator:
    def __init__(self, program: Path, scratch: Path, seconds: float, warm_up: float) -> None:
        self._program = program
        self._scratch = scratch
        self.seconds = seconds
        self.warm_up = warm_up
        scratch.mkdir(parents=True, exist_ok=True)

    def run(
        self,
        request: Request,
        *,
        grpc: bool,
        port: int,
        level: Level,
        reply_bytes: int,
        reply_slack: int,
        pids: Sequence[int],
        at_least_seconds: float = 0,
    ) -> tuple[Measured, list[bytes]]:
        """What was measured, and some of the replies."""
        seconds = max(self.seconds, at_least_seconds)
        body, headers, samples = (self._scratch / name for name in ("body", "headers", "samples"))
        body.write_bytes(request.body)
        headers.write_text("".join(f"{name}: {value}\n" for name, value in request.headers.items()))
        samples.unlink(missing_ok=True)
        in_flight = level.shape.connections * level.shape.streams
        options = {
            "protocol": "grpc" if grpc else "http", "port": port, "path": request.path, "body": body,
            "reply-bytes": reply_bytes, "reply-slack": reply_slack, "connections": level.shape.connections,
            "seconds": seconds, "warm-up": self.warm_up, "patience": PATIENCE_SECONDS, "samples": samples,
            "pids": ",".join(map(str, pids)), **({} if grpc else {"headers": headers}),
            **({"rate": level.rate} if level.rate else {"in-flight": in_flight}),
            **({"polls": 1} if polls(level) else {}),
        }  # fmt: skip
        command = ["taskset", "-c", str(LOAD_CORE), str(self._program)]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        limit = seconds + self.warm_up + PATIENCE_SECONDS + _MARGIN_SECONDS
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            raise LoadError(f"the load generator did not end within {limit:.0f} s") from None
        if done.returncode:
            raise LoadError(f"the load generator ended with {done.returncode}: {done.stderr.strip()}")
        return parse(done.stdout, seconds, polls(level)), read_samples(samples)
