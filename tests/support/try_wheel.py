"""Tries out a finished wheel: its size, then the tensor_add example, served in a clean environment beside MindSpore by
Python and by a C++ program that was built against the wheel.

usage: try_wheel.py dist/NAME.whl

The clean environment sees no compiler and no CMake: its PATH holds its own bin folder and nothing else. It is kept
between runs, with the wheel installed anew. The C++ program is compiled before, outside of it.
"""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from servers import ServerProcess, copy_example, run_script

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "build" / "wheel-try"
LIMIT_BYTES = 15_000_000


def pinned_mindspore() -> str:
    for line in (ROOT / "requirements" / "dev.txt").read_text().splitlines():
        if line.startswith("mindspore=="):
            return line.strip()
    raise SystemExit("requirements/dev.txt names no mindspore")


def main() -> None:
    wheel = Path(sys.argv[1]).resolve()
    size = wheel.stat().st_size
    print(f"{wheel.name}: {size / 1e6:.1f} MB")
    if size >= LIMIT_BYTES:
        raise SystemExit(f"the wheel is over {LIMIT_BYTES / 1e6:.0f} MB")

    python = HOME / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(HOME / "venv", with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, pinned_mindspore()], check=True)
    subprocess.run([*pip, "--force-reinstall", "--no-deps", str(wheel)], check=True)
    subprocess.run([*pip, str(wheel)], check=True)  # now its dependencies

    program = build_program(python)
    os.environ["PATH"] = str(python.parent)
    os.environ.pop("PYTHONPATH", None)
    for tool in ("gcc", "g++", "cc", "c++", "clang", "cmake", "ninja"):
        if any((Path(folder) / tool).exists() for folder in os.environ["PATH"].split(":")):
            raise SystemExit(f"{tool} is within reach of the clean environment")

    example = HOME / "tensor_add"
    shutil.rmtree(example, ignore_errors=True)
    copy_example("tensor_add", HOME)
    run_script(example / "export_model.py", python=str(python))
    serve(ServerProcess(example / "serving_server.py", python=str(python)), example, python)
    print(f"{wheel.name} serves the example in a clean environment")
    # The program's argument is the servable's directory; its workers are the python3 of PATH.
    serve(ServerProcess(example, python=str(program), cwd=example), example, python)
    print(f"{wheel.name} serves it in a C++ program as well")


def build_program(python: Path) -> Path:
    """examples/embedded_cpp, against the package that is installed for `python`."""
    folder = HOME / "embedded_cpp"
    shutil.rmtree(folder, ignore_errors=True)
    source = copy_example("embedded_cpp", HOME)
    told = subprocess.run([str(python), "-m", "mindspore_serving", "--cmake-dir"], stdout=subprocess.PIPE, check=True)
    package = told.stdout.decode().strip()
    cmake = ["cmake", "-G", "Ninja", "-S", str(source), "-B", str(source / "build")]
    subprocess.run([*cmake, f"-Dmindspore_serving_DIR={package}"], stdout=subprocess.DEVNULL, check=True)
    subprocess.run(["cmake", "--build", str(source / "build")], stdout=subprocess.DEVNULL, check=True)
    return source / "build" / "embedded_server"


def serve(process: ServerProcess, example: Path, python: Path) -> None:
    with process as server:
        print(run_script(example / "serving_client.py", python=str(python), env=server.client_env).strip())
        if server.stop() != 0:
            raise SystemExit(server.log)
        if server.pids():
            raise SystemExit(f"processes left behind: {server.pids()}")


if __name__ == "__main__":
    main()
