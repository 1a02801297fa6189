"""JUnit files: written by the checks that are no pytest, read by the summary of `./dev test`."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree


@dataclass
class Counts:
    passed: int = 0
    failed: list[str] = field(default_factory=list)
    skipped: int = 0


def read_counts(path: Path) -> Counts:
    counts = Counts()
    for case in ElementTree.parse(path).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
            counts.failed.append(f"{case.get('classname', '')} {case.get('name', '')}".strip())
        elif case.find("skipped") is not None:
            counts.skipped += 1
        else:
            counts.passed += 1
    return counts


class Report:
    """Runs checks one after the other, says how each went, and writes the JUnit file at the end."""

    def __init__(self, suite: str) -> None:
        self._suite = ElementTree.Element("testsuite", name=suite)
        self.failed = 0

    def check(self, name: str, body: Callable[[], str]) -> None:
        """`body` returns a line about what it did; an exception is the check's failure."""
        case = ElementTree.SubElement(self._suite, "testcase", classname=self._suite.get("name", ""), name=name)
        started = time.monotonic()
        try:
            outcome = f"ok: {body()}"
        except Exception as error:  # any failure belongs to this check alone
            self.failed += 1
            outcome = f"FAILED: {error}"
            ElementTree.SubElement(case, "failure", message=str(error)[:200]).text = str(error)
        case.set("time", f"{time.monotonic() - started:.3f}")
        print(f"    {name}: {outcome}", flush=True)

    def write(self, path: Path) -> None:
        ElementTree.ElementTree(self._suite).write(path, encoding="unicode")
