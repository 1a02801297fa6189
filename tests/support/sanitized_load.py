"""Mixed load on the core built with sanitizers: 64 connections, every answer checked, and not one report.

usage: sanitized_load.py --junit FILE [--seconds 10] [--preset asan --preset tsan]

The program under load is benchmarks/core/core_server.cc with the test double as its model, once with its worker in a
process of its own and once within its own process, where a sanitizer sees both sides of the shared memory.
"""

import argparse
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))  # its load generators

import raw_http2 as h2  # noqa: E402
from harness import load, messages  # noqa: E402
from junit import Report  # noqa: E402
from servers import free_port  # noqa: E402

Instances = list[messages.Instance]
METHOD = ("add", "add_common")
SANITIZERS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "second_deadlock_stack=1",
}
REPORTS = ("Sanitizer", "runtime error:")


def program_in(build: Path, name: str) -> Path:
    found = [path for path in build.rglob(name) if path.is_file()]
    if not found:
        raise RuntimeError(f"{name} is not built in {build}")
    return found[0]


def random_instances(
    random: np.random.Generator, count: int
) -> tuple[list[messages.Instance], list[messages.Instance]]:
    inputs = [{name: random.random((2, 2), np.float32) for name in ("x1", "x2")} for _ in range(count)]
    return inputs, [{"y": one["x1"] + one["x2"]} for one in inputs]


def h2load(address: str, seconds: int, scratch: Path) -> int:
    inputs, expected = random_instances(np.random.default_rng(1), 3)
    message = messages.predict_message(*METHOD, inputs)
    reply_bytes = messages.checked_grpc(address, message, expected)
    body = messages.grpc_body(message)
    return load.run(
        load.Load(messages.GRPC_PATH, body, reply_bytes, load.Shape(32, 8)), address, seconds, scratch
    ).requests


def wrk(address: str, seconds: int, scratch: Path) -> int:
    inputs, expected = random_instances(np.random.default_rng(2), 2)
    path, body = "/model/add:add_common", messages.rest_body(inputs)
    reply_bytes = messages.checked_rest(address, path, body, expected)
    sent = load.Load(path, body, reply_bytes, load.Shape(26), rest=True)
    return load.run(sent, address, seconds, scratch).requests


def checking_client(address: str, rest: bool, seed: int, deadline: float) -> int:
    """Other numbers in every request, and a comparison of every answer."""
    random, calls = np.random.default_rng(seed), 0
    while time.monotonic() < deadline:
        inputs, expected = random_instances(random, int(random.integers(1, 40)))
        if rest:
            messages.checked_rest(address, "/model/add:add_common", messages.rest_body(inputs), expected)
        else:
            messages.checked_grpc(address, messages.predict_message(*METHOD, inputs), expected)
        calls += 1
    return calls


def rude_client(address: str, deadline: float) -> int:
    """Calls and goes away, or takes the call back."""
    body = messages.grpc_body(messages.predict_message(*METHOD, random_instances(np.random.default_rng(3), 2)[0]))
    calls = 0
    while time.monotonic() < deadline:
        with h2.open_connection(address) as connection:
            for stream in range(1, 2 + 2 * (calls % 5), 2):
                connection.sendall(
                    h2.frame(h2.HEADERS, h2.END_HEADERS, stream, h2.predict_headers())
                    + h2.frame(h2.DATA, h2.END_STREAM, stream, body)
                )
                if calls % 2:
                    connection.sendall(h2.frame(h2.RST_STREAM, 0, stream, struct.pack(">I", 8)))
        calls += 1
        time.sleep(0.005)
    return calls


def start(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **SANITIZERS}
        )
    deadline = time.monotonic() + 60
    while b"ready" not in output.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"core_server does not start:\n{output.read_text(errors='replace')}")
        time.sleep(0.05)
    return process


def loads(grpc: str, rest: str, seconds: int, scratch: Path) -> list[Callable[[], int]]:
    """64 connections in all: 32 and 26 of the generators, 5 that check, 1 that is rude."""
    deadline = time.monotonic() + seconds
    for name in ("h2load", "wrk"):
        (scratch / name).mkdir()
    return [
        partial(h2load, grpc, seconds, scratch / "h2load"),
        partial(wrk, rest, seconds, scratch / "wrk"),
        *(partial(checking_client, grpc, False, seed, deadline) for seed in (10, 11, 12)),
        *(partial(checking_client, rest, True, seed, deadline) for seed in (20, 21)),
        partial(rude_client, grpc, deadline),
    ]


def run(preset: str, extra: list[str], seconds: int) -> str:
    build = ROOT / "build" / preset
    grpc, rest = (f"127.0.0.1:{free_port()}" for _ in range(2))
    library = program_in(build, "libmsserving_session_test_double.so")
    command = [str(program_in(build, "core_server")), "--session", str(library), "--grpc", grpc, "--rest", rest]
    command += ["--threads", "2", "--workers", "2", *extra]
    if preset == "tsan" and subprocess.run(["setarch", "-R", "true"], capture_output=True).returncode == 0:
        command = ["setarch", "-R", *command]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        output = scratch / "output"
        process = start(command, output)
        try:
            with ThreadPoolExecutor(8) as pool:
                running = [pool.submit(one) for one in loads(grpc, rest, seconds, scratch)]
            failures = [repr(error) for future in running if (error := future.exception())]
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
        finally:
            process.kill()
            process.wait()
        text = output.read_text(errors="replace")
        if failures or code or any(word in text for word in REPORTS):
            raise RuntimeError("\n".join([*failures, f"exit code {code}", text[-8000:]]))
        return f"{sum(future.result() for future in running)} requests in {seconds} s"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--junit", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--preset", action="append", choices=["release", "asan", "tsan"])
    arguments = parser.parse_args()
    socket.setdefaulttimeout(60)

    report = Report("load")
    for preset in arguments.preset or ["asan", "tsan"]:
        for name, extra in (("worker process", []), ("one process", ["--same-process"])):
            report.check(f"{preset}, {name}", partial(run, preset, extra, arguments.seconds))
    report.write(arguments.junit)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
