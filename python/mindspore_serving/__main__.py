"""``python -m mindspore_serving``: where the parts of the package are that other programs need."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import mindspore_serving

_PACKAGE = Path(__file__).resolve().parent
_DIRECTORIES = {
    "cmake-dir": (_PACKAGE / "lib" / "cmake" / "mindspore_serving", "the CMake package: -Dmindspore_serving_DIR=..."),
    "include-dir": (_PACKAGE / "include", "the C and C++ headers"),
    "lib-dir": (_PACKAGE / "lib", "libmindspore_serving.so"),
    "pkgconfig-dir": (_PACKAGE / "lib" / "pkgconfig", "the pkg-config file: for PKG_CONFIG_PATH"),
}
_EPILOG = """\
To build a C++ program that embeds the server:

  cmake -S . -B build -Dmindspore_serving_DIR="$(python -m mindspore_serving --cmake-dir)"

Servers in Python are scripts that call mindspore_serving.server; the session library for another MindSpore is built by
python -m mindspore_serving.build_session.
"""


def main(arguments: list[str] | None = None) -> int:
    """Print what is asked for, a line each, in the order of the options' help.

    Args:
        arguments: The command line's; None takes the process's own.

    Returns:
        The process's exit code: 1 if a directory is not part of this installation.
    """
    parser = argparse.ArgumentParser(
        prog="python -m mindspore_serving",
        description="Prints where parts of the installed package are.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=mindspore_serving.__version__)
    for name, (_, what) in _DIRECTORIES.items():
        parser.add_argument(f"--{name}", action="store_true", help=what)
    asked = vars(parser.parse_args(arguments))
    wanted = [path for name, (path, _) in _DIRECTORIES.items() if asked[name.replace("-", "_")]]
    if not wanted:
        parser.print_help()
    for path in wanted:
        if not path.is_dir():
            print(f"{path} does not exist: this package was installed without its C++ library", file=sys.stderr)
            return 1
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
