"""Instructions per request of the hot paths, counted by callgrind and compared with tests/instructions/baseline.json.

usage: count_instructions.py --build build/release [--junit FILE] [--update]

A count does not depend on how busy the machine is, so a growth is a change of the code (or of the compiler: counts are
compared only with a baseline of the same compiler). More than 3 % above the baseline fails; a commit that means it
runs this with --update and says why. A gain should be written down the same way, or a later loss hides behind it.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from junit import Report

FOLDER = Path(__file__).resolve().parents[1] / "instructions"
BASELINE = FOLDER / "baseline.json"
TOLERANCE = 0.03
# Part, recorded request, and how many more requests the second of two runs replays; start-up cancels out.
CASES = [
    ("grpc-decode", "addb_1.bin", 2000),
    ("grpc-decode", "addb_16.bin", 500),
    ("grpc-decode", "row_784.bin", 2000),
    ("grpc-reply", "addb_1.bin", 2000),
    ("grpc-reply", "addb_16.bin", 500),
    ("json-decode", "add_1.json", 2000),
    ("json-decode", "row_784.json", 100),
    ("json-decode", "image_b64.json", 100),
    ("json-reply", "add_1.json", 2000),
    ("json-reply", "row_784.json", 100),
    ("queue", "addb_16.bin", 500),
]
# What glibc and simdjson choose by the processor is chosen alike everywhere.
ENVIRONMENT = {"SIMDJSON_FORCE_IMPLEMENTATION": "haswell", "LD_BIND_NOW": "1"}


def compiler(build: Path) -> str:
    cache = (build / "CMakeCache.txt").read_text()
    found = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.+)$", cache, re.MULTILINE)
    if not found:
        raise SystemExit(f"{build} is no CMake build directory")
    return subprocess.run([found[1], "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def instructions(program: Path, part: str, request: str, count: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out", str(program)]
        command += [part, str(FOLDER / "requests" / request), str(count)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, env={**os.environ, **ENVIRONMENT}, check=False
        )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return int(found[1])


def per_request(program: Path, part: str, request: str, count: int) -> int:
    few = instructions(program, part, request, 50)
    return round((instructions(program, part, request, 50 + count) - few) / count)


def verdict(name: str, counted: int, baseline: dict[str, int]) -> str:
    if name not in baseline:
        raise RuntimeError(f"{counted:,} instructions a request, no baseline: run with --update")
    was = baseline[name]
    change = f"{counted:,} instructions a request, {(counted - was) / was:+.1%} on the baseline's {was:,}"
    if counted > was * (1 + TOLERANCE):
        raise RuntimeError(f"{change}: more than {TOLERANCE:.0%}. If it is meant, run with --update and say why")
    return change


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--junit", type=Path)
    parser.add_argument("--update", action="store_true", help="write what is counted as the new baseline")
    arguments = parser.parse_args()

    program = arguments.build / "benchmarks" / "hot_path_replay"
    used = compiler(arguments.build)
    written = json.loads(BASELINE.read_text()) if BASELINE.exists() else {"compiler": used, "instructions": {}}
    report = Report("instructions")
    counts: dict[str, int] = {}
    for part, request, count in CASES:
        name = f"{part} {request}"

        def check(part: str = part, request: str = request, count: int = count, name: str = name) -> str:
            counts[name] = per_request(program, part, request, count)
            if arguments.update:
                return f"{counts[name]:,} instructions a request"
            if written["compiler"] != used:
                return (
                    f"{counts[name]:,} instructions a request; not compared, the baseline is of {written['compiler']}"
                )
            return verdict(name, counts[name], written["instructions"])

        report.check(name, check)
    if arguments.update and not report.failed:
        BASELINE.write_text(json.dumps({"compiler": used, "instructions": counts}, indent=2) + "\n")
    if arguments.junit:
        report.write(arguments.junit)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
