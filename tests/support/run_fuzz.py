"""Runs every fuzz target for a time, starting from its corpus. (The C++ tests replay the corpus alone.)

usage: run_fuzz.py --build build/fuzz --junit FILE [--seconds 60]

A target is a program NAME_fuzz in the build directory; its corpus is tests/fuzz/corpus/NAME. A crash leaves its input
in build/fuzz/crashes; add it to the corpus with the fix.
"""

import argparse
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from junit import Report

CORPUS = Path(__file__).resolve().parents[1] / "fuzz" / "corpus"


def run_target(program: Path, crashes: Path, seconds: int) -> str:
    corpus = CORPUS / program.name.removesuffix("_fuzz")
    seeds = sum(1 for path in corpus.rglob("*") if path.is_file())
    if not seeds:
        raise RuntimeError(f"no corpus in {corpus}")
    command = [str(program), f"-artifact_prefix={crashes}/{program.name}-", "-rss_limit_mb=4096", "-timeout=20"]
    found = program.parent / f"{program.name}.found"  # new inputs go here, not into the sources
    found.mkdir(exist_ok=True)
    command += [f"-max_total_time={seconds}", str(found), str(corpus)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=seconds + 300
    )
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}\n" + "\n".join(done.stdout.splitlines()[-60:]))
    return f"{seeds} seeds, then {seconds} s"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--junit", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=60)
    arguments = parser.parse_args()

    crashes = arguments.build / "crashes"
    crashes.mkdir(exist_ok=True)
    programs = sorted(p for p in arguments.build.rglob("*_fuzz") if p.is_file() and os.access(p, os.X_OK))
    if not programs:
        print(f"no fuzz target in {arguments.build}")
        return 1
    report = Report("fuzz")
    for program in programs:
        report.check(program.name, partial(run_target, program.resolve(), crashes.resolve(), arguments.seconds))
    report.write(arguments.junit)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
