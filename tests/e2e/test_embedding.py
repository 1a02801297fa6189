"""examples/embedded_cpp, built outside of the source tree against the installed package; and the library itself."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding import library, open_library, package, run, wait_for
from servables import make_servable
from servers import EXAMPLES, ServerProcess, copy_example, run_script

COMPILERS = [name for name in ("g++", "clang++", "clang++-14") if shutil.which(name)]
C_COMPILERS = [name for name in ("gcc", "clang", "clang-14") if shutil.which(name)]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's program, as its README builds it."""
    source = copy_example("embedded_cpp", tmp_path_factory.mktemp("embedding"))
    build = source.parent / "build"
    generator = [] if shutil.which("make") else ["-G", "Ninja"]
    run("cmake", *generator, "-S", source, "-B", build, f"-Dmindspore_serving_DIR={package('cmake-dir')}")
    run("cmake", "--build", build)
    return build / "embedded_server"


@pytest.fixture
def start(program: Path, tensor_add_folder: Path, tmp_path: Path) -> Iterator:
    """Starts the program with a servable's directory as its argument; otherwise as ServerProcess."""
    servers = []

    def make(folder: Path = tensor_add_folder, **arguments) -> ServerProcess:
        arguments.setdefault("env", {"MSSERVING_PYTHON": sys.executable})
        servers.append(ServerProcess(folder, python=str(program), cwd=tmp_path, **arguments))
        return servers[-1].start()

    yield make
    for server in servers:
        server.kill()


def shared_memory() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if "serving" in name}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_TheExampleServesRealModelsAndLeavesNothing(start, tensor_add_folder: Path, tmp_path: Path, number: int):
    before = shared_memory()
    server = start().wait_ready()
    printed = run_script(tensor_add_folder / "serving_client.py", env=server.client_env)
    for text in ("gRPC add_common, float32", "gRPC add_cast, int32", "REST add_common"):
        assert text in printed
    assert "add version 1 device0 is running" in server.log
    assert server.stop(number) == 0, server.log
    assert server.pids() == []
    assert shared_memory() == before
    assert "Stopped" in server.log
    assert [path.name for path in (tmp_path / "serving_logs").iterdir()] == ["log_add_device0_version1.log"]


def test_CtrlCEndsAStartThatWaits(start, tmp_path: Path):
    waits = "import time\nopen('started', 'w').close()\ntime.sleep(600)\n"
    make_servable(tmp_path / "slow", "add", waits, {})
    server = start(tmp_path / "slow")
    wait_for(lambda: "is starting" in server.log)
    assert server.stop() == 0, server.log
    assert server.pids() == []
    assert "Serving gRPC" not in server.log


def test_WorkersEndWithAHostThatIsKilled(start):
    server = start().wait_ready()
    assert server.worker_pids()
    server.send_signal(signal.SIGKILL)
    wait_for(lambda: server.pids() == [])
    assert server.wait_exit() == -signal.SIGKILL


def test_AFailedStartTellsTheUsersOwnLine(start, tmp_path: Path):
    make_servable(tmp_path / "broken", "add", "import this_is_no_module\n", {})
    server = start(tmp_path / "broken")
    assert server.wait_exit(60) == 1
    assert "No module named 'this_is_no_module'" in server.log
    assert "servable_config.py" in server.log
    assert server.pids() == []


def test_APythonWithoutThePackageIsNamed(start, tmp_path: Path):
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')
    (tmp_path / "python").chmod(0o755)
    server = start(env={"MSSERVING_PYTHON": str(tmp_path / "python")})
    assert server.wait_exit(60) == 1
    assert f"mindspore_serving cannot be imported by Python '{tmp_path}/python', which the environment" in server.log
    assert "No module named 'mindspore_serving'" in server.log


def test_TheLibraryExportsItsFunctionsAlone():
    header = (package("include-dir") / "mindspore_serving" / "server_c.h").read_text()
    declared = set(re.findall(r"^MS_SERVING_API [^;(]*?\b(ms_serving_\w+)\(", header, re.M))
    printed = run("nm", "-D", "--defined-only", library())
    exported = {line.split()[-1].split("@")[0] for line in printed.splitlines() if " A " not in line}
    assert len(declared) > 20
    assert exported == declared
    assert f"[{library().name}]" in run("readelf", "-d", library()).partition("SONAME")[2]


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("standard", ["c++17", "c++20"])
def test_TheHeaderStandsAlone(compiler: str, standard: str, tmp_path: Path):
    (tmp_path / "alone.cc").write_text("#include <mindspore_serving/server.h>\nmindspore_serving::Server* server;\n")
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", "-fsyntax-only"]
    run(compiler, f"-std={standard}", *strict, f"-I{package('include-dir')}", tmp_path / "alone.cc")


@pytest.mark.parametrize("compiler", C_COMPILERS)
def test_TheCHeaderIsC(compiler: str, tmp_path: Path):
    (tmp_path / "alone.c").write_text("#include <mindspore_serving/server_c.h>\nMsServingServerOptions options;\n")
    strict = ["-Wall", "-Wextra", "-Wpedantic", "-Wstrict-prototypes", "-Werror", "-fsyntax-only"]
    run(compiler, "-std=c99", *strict, f"-I{package('include-dir')}", tmp_path / "alone.c")


def test_PkgConfigBuildsTheExample(tmp_path: Path):
    if not shutil.which("pkg-config"):
        pytest.skip("there is no pkg-config")
    flags = run(
        "pkg-config", "--cflags", "--libs", "mindspore_serving", env={"PKG_CONFIG_PATH": str(package("pkgconfig-dir"))}
    ).split()
    program = tmp_path / "program"
    run("g++", "-std=c++17", EXAMPLES / "embedded_cpp" / "main.cc", *flags, "-o", program)
    done = subprocess.run([program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "usage: embedded_server DIRECTORY [NAME]")


def test_TheCommandTellsWhereThingsAre():
    command = [sys.executable, "-m", "mindspore_serving"]
    assert run(*command, "--include-dir", "--lib-dir").splitlines() == [
        str(package("include-dir")),
        str(package("lib-dir")),
    ]
    assert "-Dmindspore_serving_DIR=" in run(*command, "--help")
    assert run(*command) == run(*command, "--help")
    assert run(*command, "--version").strip() == open_library().ms_serving_version().decode()
