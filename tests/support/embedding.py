"""The installed package as C++ programs see it."""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

# CMake and Ninja may be Python packages beside the interpreter.
PATH = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent)])


def run(*command: object, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PATH": PATH, **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def package(option: str) -> Path:
    return Path(run(sys.executable, "-m", "mindspore_serving", f"--{option}", cwd=Path("/")).strip())


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the time"
        time.sleep(0.02)


def library() -> Path:
    (file,) = package("lib-dir").glob("libmindspore_serving.so.*")
    return file


def open_library() -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(library()))
    loaded.ms_serving_version.restype = ctypes.c_char_p
    loaded.ms_serving_error_message.restype = ctypes.c_char_p
    loaded.ms_serving_error_message.argtypes = [ctypes.c_void_p]
    loaded.ms_serving_error_free.argtypes = [ctypes.c_void_p]
    return loaded
