"""One run of a load generator, pinned to the load core: h2load for gRPC, wrk for REST, ours where a client polls."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

LOAD_CORE = 1
GRACE_SECONDS = 30


def load_generator(build: Path) -> Path:
    """Our own, of the build in that folder."""
    return build / "benchmarks" / "load_generator"


class LoadError(RuntimeError):
    """The load generator failed, or the server did not give the answer that was checked before."""


@dataclass(frozen=True)
class Shape:
    """How many connections, and how many requests in flight on each."""

    connections: int
    streams: int = 1

    def __str__(self) -> str:
        return f"{self.connections}x{self.streams}"


@dataclass(frozen=True)
class Load:
    """What is sent: `body` is the HTTP body, for gRPC with its five bytes of prefix."""

    path: str
    body: bytes
    reply_bytes: int  # of the HTTP body; every answer under load must have this length
    shape: Shape
    rest: bool = False
    # load/load_generator.cc, where the client is to look for answers without sleeping. Waking a sleeping client and its
    # processor takes tens of microseconds, which are the machine's and not the server's.
    polled_by: Path | None = None


@dataclass(frozen=True)
class Measured:
    requests: int
    seconds: float
    p50_us: float
    p99_us: float

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def run(load: Load, address: str, seconds: int, scratch: Path) -> Measured:
    if load.polled_by:
        return _run_polling(load.polled_by, load, address, seconds, scratch)
    return _run_wrk(load, address, seconds, scratch) if load.rest else _run_h2load(load, address, seconds, scratch)


def _pinned(command: list[str], seconds: int) -> str:
    command = ["taskset", "-c", str(LOAD_CORE), *command]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds + GRACE_SECONDS
        )
    except subprocess.TimeoutExpired as error:  # a request that is never answered, or the generator's own trouble
        printed = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        raise LoadError(f"{command[3]} did not end {GRACE_SECONDS} s after its time:\n{printed}") from None
    if done.returncode:
        raise LoadError(f"{' '.join(command[:6])} ... ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if not found:
        raise LoadError(f"no {pattern!r} in:\n{text}")
    return float(found.group(1))


def percentile(ordered: list[int], share: float) -> float:
    return float(ordered[min(len(ordered) - 1, int(len(ordered) * share))])


def _run_polling(generator: Path, load: Load, address: str, seconds: int, scratch: Path) -> Measured:
    body, headers = scratch / "body.bin", scratch / "headers.txt"
    body.write_bytes(load.body)
    headers.write_text("Content-Type: application/json\n")
    protocol = ["--protocol", "http", "--headers", str(headers)] if load.rest else ["--protocol", "grpc"]
    text = _pinned(
        [str(generator), *protocol, "--port", address.rpartition(":")[2], "--path", load.path, "--body", str(body),
         "--reply-bytes", str(load.reply_bytes), "--connections", str(load.shape.connections),
         "--in-flight", str(load.shape.connections * load.shape.streams), "--seconds", str(seconds), "--warm-up", "0",
         "--polls", "1"],
        seconds,
    )  # fmt: skip
    figures = json.loads(text)
    if not figures["right"] or figures["refused"] or figures["unanswered"]:
        raise LoadError(f"requests failed:\n{text}")
    return Measured(figures["right"], seconds, figures["accepted_p50_us"], figures["accepted_p99_us"])


def _run_h2load(load: Load, address: str, seconds: int, scratch: Path) -> Measured:
    body, log = scratch / "body.bin", scratch / "h2load.log"
    body.write_bytes(load.body)
    log.unlink(missing_ok=True)
    text = _pinned(
        [
            "h2load", f"--duration={seconds}", f"--clients={load.shape.connections}",
            f"--max-concurrent-streams={load.shape.streams}", "--threads=1", f"--data={body}", f"--log-file={log}",
            # Windows of 2^30 bytes: the client's flow control is not what is measured.
            "--window-bits=30", "--connection-window-bits=30",
            "--header=content-type: application/grpc", "--header=te: trailers",
            f"http://{address}{load.path}",
        ],
        seconds,
    )  # fmt: skip
    done = int(_number(r"requests: .* (\d+) done", text))
    succeeded = int(_number(r"(\d+) succeeded", text))
    if not done or done != succeeded:
        raise LoadError(f"{done - succeeded} of {done} requests failed:\n{text}")
    _check_bytes(int(_number(r"\((\d+)\) data", text)), done, load, text)
    durations = sorted(int(line.rpartition("\t")[2]) for line in log.read_text().splitlines())
    return Measured(done, seconds, percentile(durations, 0.50), percentile(durations, 0.99))


def _check_bytes(data: int, done: int, load: Load, text: str) -> None:
    """gRPC errors are 200 to h2load, but shorter or longer; the last replies may be cut off by the end of the run."""
    in_flight = load.shape.connections * load.shape.streams
    if abs(data - done * load.reply_bytes) > in_flight * load.reply_bytes:
        raise LoadError(f"{done} replies of {load.reply_bytes} bytes were expected, {data} bytes came:\n{text}")


def _run_wrk(load: Load, address: str, seconds: int, scratch: Path) -> Measured:
    body, script = scratch / "body.json", scratch / "wrk.lua"
    body.write_bytes(load.body)
    # wrk's own report rounds latencies; done() prints them in µs.
    script.write_text(
        f"""
local file = io.open({json.dumps(str(body))}, "rb")
wrk.method = "POST"
wrk.body = file:read("*all")
wrk.headers["Content-Type"] = "application/json"
function done(summary, latency, requests)
  local e = summary.errors
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format("result %d requests %d us p50 %d p99 %d; %d errors\\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), errors))
end
"""
    )
    text = _pinned(
        ["wrk", "--threads=1", f"--connections={load.shape.connections}", f"--duration={seconds}s", "--timeout=30s",
         f"--script={script}", f"http://{address}{load.path}"],
        seconds,
    )  # fmt: skip
    requests = int(_number(r"result (\d+) requests", text))
    if not requests or _number(r"(\d+) errors", text):
        raise LoadError(f"requests failed:\n{text}")
    return Measured(
        requests,
        _number(r"requests (\d+) us", text) / 1e6,
        _number(r"p50 (\d+)", text),
        _number(r"p99 (\d+)", text),
    )
