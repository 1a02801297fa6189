"""The raw results of one run or of several parts of one, as a file keeps them.

A case lies whole in one run, with that run's machine, date, ceilings and rows: figures are compared within it alone.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIME_WAS_UP = "not run: the time for this run was up"

Row = Mapping[str, Any]
# date, machine, settings, versions, ceilings, cases (names), rows
Run = Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    runs: Sequence[Run]

    @property
    def rows(self) -> list[Row]:
        return [row for run in self.runs for row in run["rows"]]

    @property
    def cases(self) -> list[str]:
        return [case for run in self.runs for case in run["cases"]]

    @property
    def versions(self) -> dict[str, dict[str, Any]]:
        """Of each server, as the latest run had it; ours and the ceilings first, as a run has them."""
        found: dict[str, dict[str, Any]] = {}
        for run in self.runs:
            found.update(run["versions"])
        return found

    def run_of(self, case: str) -> Run:
        return next(run for run in self.runs if case in run["cases"])

    def as_json(self) -> dict[str, Any]:
        return {"runs": list(self.runs)}


def from_json(content: Mapping[str, Any]) -> Results:
    return Results(content["runs"])


def read(path: Path) -> Results:
    return from_json(json.loads(path.read_text())) if path.exists() else Results([])


def write(results: Results, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(results.as_json(), indent=1) + "\n")
    beside.replace(path)  # a run that is ended here leaves the file as it was


def is_complete(run: Run, case: str) -> bool:
    """Whether nothing of the case was left out for want of time. What a server itself refused is a result."""
    rows = [row for row in run["rows"] if row["case"] == case]
    return bool(rows) and all(row["error"] != TIME_WAS_UP for row in rows)


def _only(run: Run, cases: Iterable[str]) -> Run:
    kept = [case for case in run["cases"] if case in set(cases)]
    return {**run, "cases": kept, "rows": [row for row in run["rows"] if row["case"] in kept]}


def merged(parts: Sequence[Results]) -> Results:
    """All cases of all parts, each from the last that has it; a complete one stands against one that is not."""
    runs = [run for part in parts for run in part.runs]
    chosen: dict[str, int] = {}
    for position, run in enumerate(runs):
        for case in run["cases"]:
            if case not in chosen or is_complete(run, case) or not is_complete(runs[chosen[case]], case):
                chosen[case] = position
    kept = [_only(run, [case for case, at in chosen.items() if at == here]) for here, run in enumerate(runs)]
    return Results([run for run in kept if run["cases"]])


def measured_so(results: Results, settings: Mapping[str, Any]) -> list[str]:
    """Cases that are complete and were measured with these settings; `minutes` is no setting."""
    found = []
    for run in results.runs:
        if all(run["settings"].get(name) == value for name, value in settings.items() if name != "minutes"):
            found += [case for case in run["cases"] if is_complete(run, case)]
    return found
