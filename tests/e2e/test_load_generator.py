"""The load generator of all comparisons, against small servers that are slow, wrong or gone in known ways; and one tiny
run of the comparison with ours alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "release" / "benchmarks"
GENERATOR = BUILD / "load_generator"

pytestmark = pytest.mark.skipif(not GENERATOR.exists(), reason="the C++ programs are not built: ./dev test builds them")

Answer = Callable[[int], tuple[int, bytes]]  # of the request's number: status and body


@contextmanager
def serving(answer: Answer, *, keep_alive: bool = True) -> Iterator[int]:
    """An HTTP server on a free port."""
    lock = threading.Lock()
    count = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1" if keep_alive else "HTTP/1.0"

        def do_POST(self) -> None:
            nonlocal count
            self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                number = count
                count += 1
            status, body = answer(number)
            self.send_response(status)
            if keep_alive:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def generate(tmp_path: Path, port: int, *options: str, reply_bytes: int = 2) -> dict[str, float]:
    body = tmp_path / "body"
    body.write_bytes(b"question")
    command = [str(GENERATOR), "--protocol", "http", "--path", "/x", "--port", str(port), "--body", str(body)]
    command += ["--reply-bytes", str(reply_bytes), "--patience", "20", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def test_a_stall_is_seen_by_all_requests_that_were_due_in_it(tmp_path: Path) -> None:
    """One answer of the only connection takes a second. 100 requests a second: half of two seconds' requests wait."""

    def answer(number: int) -> tuple[int, bytes]:
        if number == 20:
            time.sleep(1)
        return 200, b"ok"

    with serving(answer) as port:
        figures = generate(tmp_path, port, "--rate", "100", "--connections", "1", "--seconds", "2", "--warm-up", "0")
    assert figures["accepted"] == pytest.approx(200, abs=3)
    assert figures["accepted_max_us"] >= 900_000
    # Without the correction only one answer in 200 would be slow, and p90 would be that of a quick one.
    assert figures["accepted_p90_us"] >= 500_000


def test_wrong_answers_are_no_goodput(tmp_path: Path) -> None:
    answers = [(200, b"ok"), (503, b"no"), (200, b"too long")]
    with serving(lambda number: answers[number % 3]) as port:
        figures = generate(tmp_path, port, "--in-flight", "1", "--connections", "1", "--seconds", "1", "--warm-up", "0")
    errors = figures["errors"]
    assert isinstance(errors, dict) and set(errors) == {"http 503", "wrong length"}
    assert figures["right"] == pytest.approx(figures["sent"] / 3, abs=2)


def test_server_that_closes_after_each_answer_is_called_again(tmp_path: Path) -> None:
    with serving(lambda number: (200, b"ok"), keep_alive=False) as port:
        figures = generate(tmp_path, port, "--in-flight", "2", "--connections", "2", "--seconds", "1", "--warm-up", "0")
    assert figures["right"] > 2
    assert figures["errors"] == {}


def test_some_answers_are_kept_as_they_came(tmp_path: Path) -> None:
    samples = tmp_path / "samples"
    with serving(lambda number: (200, b"ok")) as port:
        options = [
            "--in-flight",
            "1",
            "--connections",
            "1",
            "--seconds",
            "0.5",
            "--warm-up",
            "0",
            "--samples",
            str(samples),
        ]
        generate(tmp_path, port, *options)
    data = samples.read_bytes()
    assert len(data) >= 6
    assert data == b"\x02\0\0\0ok" * (len(data) // 6)


def test_a_client_that_polls_does_not_sleep_until_the_answer(tmp_path: Path) -> None:
    """A server that sleeps 50 ms needs no processor, and neither does a client that sleeps until it answers."""

    def answer(number: int) -> tuple[int, bytes]:
        time.sleep(0.05)
        return 200, b"ok"

    once = ["--in-flight", "1", "--connections", "1", "--seconds", "1", "--warm-up", "0"]
    with serving(answer) as port:
        asleep = generate(tmp_path, port, *once)
        polling = generate(tmp_path, port, *once, "--polls", "1")
    for figures in (asleep, polling):
        assert figures["right"] > 0
        assert (figures["refused"], figures["unanswered"]) == (0, 0)
        assert figures["accepted_p50_us"] >= 50_000
    assert polling["generator_cpu_s"] > 10 * asleep["generator_cpu_s"]


def test_processor_time_of_the_server_is_counted(tmp_path: Path) -> None:
    def answer(number: int) -> tuple[int, bytes]:
        until = time.thread_time() + 0.01
        while time.thread_time() < until:
            pass
        return 200, b"ok"

    with serving(answer) as port:
        options = [
            "--in-flight",
            "1",
            "--connections",
            "1",
            "--seconds",
            "1",
            "--warm-up",
            "0",
            "--pids",
            str(os.getpid()),
        ]
        figures = generate(tmp_path, port, *options)
    assert figures["server_cpu_s"] >= 0.009 * figures["right"]


def test_server_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(b"question")
    options = ["--port", "1", "--body", str(body), "--reply-bytes", "2", "--in-flight", "1", "--connections", "1"]
    done = subprocess.run([str(GENERATOR), *options], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "connect" in done.stderr


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="server and load need a core each")
def test_comparison_with_ours_alone(tmp_path: Path) -> None:
    """Models are made, ours is started, checked, loaded and reported: no rival is needed for that."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "benchmarks"), "RIVALS_FOLDER": str(tmp_path / "work")}
    done = subprocess.run(
        [sys.executable, "-m", "rivals", "--only", "ours", "--cases", "addb", "--quick", "--seconds", "0.2",
         "--budget-minutes", "5", "--no-install", "--output", str(tmp_path)],
        env=env, capture_output=True, text=True, timeout=280, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "benchmarks" / "results.json").read_text())
    ours = [row for run in results["runs"] for row in run["rows"] if row["rival"] == "ours"]
    assert {row["protocol"] for row in ours} == {"grpc", "rest"}
    assert all(row["measured"]["requests_s"] > 0 and row["checked"] > 0 for row in ours), ours
    assert "MindSpore Serving, gRPC" in (tmp_path / "benchmarks.md").read_text()
