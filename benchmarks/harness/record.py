"""What the README's table is made of: medians of the last run of each case, kept in a file, and the table of them.

A run may be of some cases only; the others stay as they were. Ratios are shown between cases of one run alone.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.case import Outcome, Sample
from harness.table import Case, render

ROOT = Path(__file__).resolve().parents[2]
STORED = ROOT / "docs" / "benchmarks" / "own.json"
README = ROOT / "README.md"
_BEGIN, _END = "<!-- table of ./dev bench: begin -->\n", "<!-- table of ./dev bench: end -->"
_FIGURES = ("rate", "p50_us", "p99_us", "cpu_us")
_LEFT_OUT = "open-"  # they have a table of their own


def read(path: Path) -> dict[str, Outcome]:
    stored = json.loads(path.read_text()) if path.exists() else {}
    found = {}
    for name, one in stored.items():
        values = {"known_spread": one["spread"], "run": one["run"]}
        if "figure" in one:
            found[name] = Outcome(figures=[one["figure"]], **values)
        else:
            found[name] = Outcome(samples=[Sample(*(one[figure] for figure in _FIGURES))], **values)
    return found


def store(outcomes: Mapping[str, Outcome], run: str, path: Path) -> None:
    """Adds the outcomes of a run, described by `run`, to those in the file. What failed changes nothing there."""
    stored = json.loads(path.read_text()) if path.exists() else {}
    for name, outcome in outcomes.items():
        if outcome.error:
            continue
        if outcome.figures:
            values = {"figure": outcome.figure}
        else:
            values = {figure: outcome.median(figure) for figure in _FIGURES}
        stored[name] = {**values, "spread": outcome.spread, "run": run}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(stored, indent=1) + "\n")


def table(cases: Sequence[Case], outcomes: Mapping[str, Outcome]) -> str:
    """Markdown: the table, and which rows are of which run. Those of the run with most rows bear no mark."""
    shown = [case for case in cases if case.name in outcomes and not case.name.startswith(_LEFT_OUT)]
    rows = Counter(outcomes[case.name].run for case in shown)
    marks = {run: chr(ord("a") + position) for position, (run, _) in enumerate(rows.most_common())}
    marked = []
    for case in shown:
        mark = marks[outcomes[case.name].run]
        marked.append(case if mark == "a" else replace(case, title=f"{case.title} ({mark})"))
    lines = [f"{run}." if mark == "a" else f"({mark}): {run}." for run, mark in marks.items()]
    return render(marked, outcomes, markdown=True) + "\n\n" + "\n\n".join(lines)


def in_readme(readme: Path) -> str:
    """The part between the marks."""
    text = readme.read_text()
    return text[text.index(_BEGIN) + len(_BEGIN) : text.index(_END)]


def write_readme(made: str, readme: Path) -> None:
    text = readme.read_text()
    readme.write_text(text.replace(_BEGIN + in_readme(readme) + _END, f"{_BEGIN}{made}\n{_END}"))
