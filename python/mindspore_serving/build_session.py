"""Builds the mindspore session library for the installed MindSpore: ``python -m mindspore_serving.build_session``.

The wheel ships the library for one MindSpore version. For another, this compiles the sources that the wheel ships
beside it and puts the result where workers look for it. Needs CMake and a C++17 compiler (g++), and a minute or two.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mindspore_serving.worker.session_library import LIBRARY_DIR_VARIABLE, built_for_mindspore
from mindspore_serving.worker.way import LIBRARY_NAME

_PACKAGE = Path(__file__).resolve().parent
_PROJECT = Path("session", "libraries", "mindspore")


def find_sources() -> Path:
    """The folder with the library's CMakeLists.txt: in the installed package, or in the source tree it runs from."""
    for root in (_PACKAGE / "session_src", _PACKAGE.parent.parent / "csrc"):
        if (root / _PROJECT / "CMakeLists.txt").is_file():
            return root / _PROJECT
    raise SystemExit(
        f"The session library's sources are not in {_PACKAGE / 'session_src'}: reinstall mindspore_serving."
    )


def find_mindspore() -> tuple[Path, str]:
    """The installed MindSpore's directory and version, without importing it."""
    spec = importlib.util.find_spec("mindspore")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"MindSpore is not installed for {sys.executable}: pip install mindspore")
    directory = Path(spec.submodule_search_locations[0])
    found = re.search(r"__version__\s*=\s*'([^']+)'", (directory / "version.py").read_text())
    if found is None:
        raise SystemExit(f"{directory / 'version.py'} does not say MindSpore's version.")
    return directory, found[1]


def build(target: Path, jobs: int) -> Path:
    """Build the library.

    Args:
        target: The folder to put it in.
        jobs: How many files to compile at a time.

    Returns:
        The library's file.

    Raises:
        SystemExit: It cannot be built; the text says why and what to do.
    """
    cmake = shutil.which("cmake")
    if cmake is None or shutil.which(os.environ.get("CXX", "g++")) is None:
        missing = "CMake" if cmake is None else "A C++ compiler"
        raise SystemExit(f"{missing} is missing. Install cmake and g++ (on Debian: apt install cmake g++).")
    sources = find_sources()
    directory, version = find_mindspore()
    print(f"Building the session library for MindSpore {version} ({directory})", flush=True)
    with tempfile.TemporaryDirectory(prefix="msserving-session-") as folder:
        configure = [
            cmake, "-S", str(sources), "-B", folder, "-DCMAKE_BUILD_TYPE=Release",
            f"-DPython_EXECUTABLE={sys.executable}", f"-DMSSERVING_MINDSPORE_DIR={directory}",
        ]  # fmt: skip
        _run(configure, "CMake could not configure the build.")
        _run(
            [cmake, "--build", folder, "--parallel", str(jobs), "--target", "msserving_session_mindspore"],
            f"The sources do not compile against MindSpore {version}. This release of mindspore_serving may be older "
            "than that MindSpore: upgrade mindspore_serving, or use a MindSpore it names in its documentation. Models "
            "run through MindSpore's Python executor until then.",
        )
        target.mkdir(parents=True, exist_ok=True)
        library = target / LIBRARY_NAME
        # Replaced, not overwritten: a running worker may have the old one mapped.
        fresh = target / f".{LIBRARY_NAME}.{os.getpid()}"
        shutil.copy2(Path(folder) / LIBRARY_NAME, fresh)
        os.replace(fresh, library)
    if built_for_mindspore(library) != version:
        raise SystemExit(f"{library} was built for another MindSpore than {version}.")
    return library


def _run(command: list[str], problem: str) -> None:
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode != 0:
        tail = "\n".join(result.stdout.splitlines()[-40:])
        raise SystemExit(f"{tail}\n\n{problem}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m mindspore_serving.build_session", description=__doc__)
    default = os.environ.get(LIBRARY_DIR_VARIABLE) or str(_PACKAGE / "lib")
    parser.add_argument(
        "--output", type=Path, default=Path(default), help="folder for the library (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="files to compile at a time")
    arguments = parser.parse_args()
    print(f"Built {build(arguments.output, arguments.jobs)}")


if __name__ == "__main__":
    main()
