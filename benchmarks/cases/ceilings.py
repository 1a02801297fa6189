"""What the machine allows in the same run: echoes with no worker behind them, and the bare session in a loop."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness import messages
from harness.case import FigureCase, LoadCase, Target
from harness.load import Load, Shape
from harness.targets import SERVER_CORE, EchoTarget

# One 2x2 float32 instance of two inputs is as long as this, so that echo and model carry the same bytes.
ECHO_MESSAGE = bytes(range(97))
ECHO_JSON = b'{"instances":[{"x1":[[1.5,2.5],[3.5,4.5]],"x2":[[1.0,1.0],[2.0,2.0]]}]}'
GRPC_ECHO_PATH = "/echo/Echo"


def programs(build: Path) -> dict[str, Callable[[], EchoTarget]]:
    """The targets of these cases, by name."""
    folder = build / "benchmarks"

    def program(name: str) -> EchoTarget:
        path = folder / name
        if not path.is_file():
            raise RuntimeError(f"{path} is not built: run it through ./dev bench")
        return EchoTarget([str(path), "--port", "{port}"])

    return {name: partial(program, name) for name in ("bare_nghttp2_echo", "frontend_echo", "rest_echo")}


def _grpc_echo(shape: Shape) -> Callable[[Target], Load]:
    def prepare(target: Target) -> Load:
        answer = messages.call_grpc(target.grpc_address, GRPC_ECHO_PATH, ECHO_MESSAGE)
        assert answer == ECHO_MESSAGE, f"the echo answered {answer!r}"
        body = messages.grpc_body(ECHO_MESSAGE)
        return Load(GRPC_ECHO_PATH, body, len(body), shape)

    return prepare


def _rest_echo(target: Target) -> Load:
    answer = messages.call_rest(target.rest_address, "/echo", ECHO_JSON)
    assert answer == ECHO_JSON, f"the echo answered {answer!r}"
    return Load("/echo", ECHO_JSON, len(ECHO_JSON), Shape(32), rest=True)


def bare_session(
    servables: Path, build: Path, name: str, batch: int, rows: int = 1, *options: str
) -> Callable[[], float]:
    """Runs a second, times `rows`. `batch`: rows of a run, 0 without a batch dimension. `options`: of
    bare_session.py."""

    def measure() -> float:
        script = Path(__file__).parents[1] / "bare_session.py"
        model = servables / name / "1" / f"{name}.mindir"
        command = ["taskset", "-c", str(SERVER_CORE), sys.executable, str(script), str(model), str(batch)]
        command += ["--build", str(build), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"bare_session.py failed:\n{done.stdout}{done.stderr}")
        return float(done.stdout.splitlines()[-1]) * rows

    return measure


def cases(servables: Path, build: Path) -> list[LoadCase | FigureCase]:
    return [
        LoadCase("bare-64x1", "echo, bare nghttp2, 64x1", "bare_nghttp2_echo", _grpc_echo(Shape(64))),
        LoadCase("bare-8x16", "echo, bare nghttp2, 8x16", "bare_nghttp2_echo", _grpc_echo(Shape(8, 16))),
        LoadCase("front-64x1", "echo, our front-end, 64x1", "frontend_echo", _grpc_echo(Shape(64)),
                 against="bare-64x1", goal="≤ 115 % CPU"),
        LoadCase("front-8x16", "echo, our front-end, 8x16", "frontend_echo", _grpc_echo(Shape(8, 16)),
                 against="bare-8x16", goal="≤ 115 % CPU"),
        LoadCase("rest-echo", "echo, our REST front-end, 32x1", "rest_echo", _rest_echo, goal="≤ 10 µs CPU"),
        FigureCase("executor-add", "MindSpore's own executor back to back, add", "runs/s",
                   bare_session(servables, build, "add", 0, 1, "--executor")),
        FigureCase("session-add", "bare session back to back, add", "runs/s",
                   bare_session(servables, build, "add", 0)),
        FigureCase("session-addb", "bare session back to back, addb (32 rows a run)", "runs/s",
                   bare_session(servables, build, "addb", 32)),
    ]  # fmt: skip
