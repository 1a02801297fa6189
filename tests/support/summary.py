"""The closing lines of `./dev test`: every result file counted, every failure named, non-zero exit on any.

usage: summary.py RESULTS_FOLDER --seconds N
"""

import argparse
import sys
from pathlib import Path

from junit import read_counts


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=Path)
    parser.add_argument("--seconds", type=int, required=True)
    arguments = parser.parse_args()

    passed = skipped = 0
    failed: list[str] = []
    print()
    for path in sorted(arguments.results.glob("*.xml")):
        counts = read_counts(path)
        print(f"{path.stem:16} {counts.passed:5} passed {len(counts.failed):4} failed {counts.skipped:4} skipped")
        passed += counts.passed
        skipped += counts.skipped
        failed += [f"{path.stem}: {name}" for name in counts.failed]
    failed += [f"{path.stem}: did not run to its end" for path in sorted(arguments.results.glob("*.broken"))]
    for name in failed:
        print("FAILED", name)
    if not passed:
        failed.append("nothing passed")
    print(f"{passed} passed, {len(failed)} failed, {skipped} skipped in {arguments.seconds} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
