"""docs/benchmarks.md and its plots, from the raw results alone: a page can be made again without measuring."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rivals import analysis, plan, plots
from rivals.analysis import Results, Row, figure
from rivals.reasons import REASONS
from rivals.registry import all_rivals
from rivals.rival import Rival

_METRICS = {"requests_s": "requests/s", "cpu_us": "CPU µs a request", "p50_us": "p50 µs", "p99_us": "p99 µs"}


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Markdown; all but the first `left` columns stand to the right."""
    rule = ["---" if column < left else "---:" for column in range(len(header))]
    lines = ["| " + " | ".join(row) + " |" for row in [header, rule, *rows]]
    return "\n".join(lines)


class Page:
    def __init__(self, results: Results, rivals: Sequence[Rival], cases: Sequence[plan.Case]) -> None:
        self.results = results
        self.rows: Sequence[Row] = results["rows"]
        self.rivals = {rival.name: rival for rival in rivals}
        measured = {row["case"] for row in self.rows}
        self.cases = [case for case in cases if case.name in measured]

    def title(self, row: Row) -> str:
        rival = self.rivals[row["rival"]]
        return f"{rival.title}, {rival.protocols[row['protocol']].title}"

    def render(self) -> str:
        parts = [
            self._head(),
            self._summary(),
            self._losses(),
            self._cases(),
            self._not_run(),
            self._servers(),
            _METHOD,
        ]
        return "\n\n".join(part.strip() for part in parts if part) + "\n"

    def _head(self) -> str:
        machine, settings = self.results["machine"], self.results["settings"]
        kind = "quick" if settings["quick"] else "full"
        run = f"a {kind} run of {settings['minutes']:.0f} minutes, {settings['seconds']:g} s each"
        system = f"{machine['memory_gb']} GB, {machine['system']} {machine['kernel']}"
        return f"""# Benchmarks beside other servers

Made by `./dev bench --rivals` on {self.results["date"]}: {run}.
{machine["processor"]}, {machine["cores"]} cores, {system}; load before it {machine["load_average_before"]:.1f}.
The server and all its processes are on core 0, the load generator on core 1. Only ratios within this page mean
anything. The raw results are in [benchmarks/results.json](benchmarks/results.json)."""

    def _summary(self) -> str:
        lines = []
        for case in self.cases:
            level = str(case.main)
            ours = analysis.best(self.rows, analysis.OURS, case.name, level)
            theirs = analysis.best(self.rows, None, case.name, level)
            if ours is None:
                continue
            line = [case.title, level, self.title(ours), number(figure(ours, "requests_s"))]
            if theirs is None:
                lines.append([*line, "", "", "", ""])
                continue
            cheapest = analysis.best(self.rows, None, case.name, level, "cpu_us") or theirs
            mine = analysis.best(self.rows, analysis.OURS, case.name, level, "cpu_us") or ours
            lines.append([
                *line, self.title(theirs), number(figure(theirs, "requests_s")),
                f"{figure(ours, 'requests_s') / figure(theirs, 'requests_s'):.1f} x",
                f"{figure(cheapest, 'cpu_us') / figure(mine, 'cpu_us'):.1f} x less",
            ])  # fmt: skip
        header = ["case", "in flight", "ours, best", "requests/s", "best rival", "requests/s", "rate", "CPU a request"]
        text = "CPU a request compares the cheapest of ours with the cheapest rival, whichever that is."
        return f"## In short\n\n{table(header, lines)}\n\n{text}"

    def _losses(self) -> str:
        lost = analysis.losses(self.results)
        if not lost:
            none = "In no row of this run is a rival ahead of the better of our two variants by more than 3 %."
            return f"## Where we lose\n\n{none}"
        rows = [
            [one.case, one.level, _METRICS[one.what], f"{self.rivals[one.rival].title} ({one.protocol})",
             number(one.theirs), number(one.ours)]
            for one in lost
        ]  # fmt: skip
        reasons = [f"- **{name}**: {text}" for name, text in REASONS.items() if any(one.case == name for one in lost)]
        header = ["case", "level", "what", "who", "theirs", "our best"]
        return "\n\n".join(["## Where we lose", table(header, rows, left=4), "\n".join(reasons)])

    def _cases(self) -> str:
        return "\n\n".join(["## Case by case", *map(self._case, self.cases)])

    def _case(self, case: plan.Case) -> str:
        parts = [f"### {case.name}: {case.title}"]
        for name, title in (("requests_s", "requests a second"), ("cpu_us", "CPU µs a request")):
            if self.chart(case, name):
                parts.append(f"![{title}](benchmarks/{case.name}-{name}.svg)")
        parts.append(self._bare(case))
        rows = [row for row in analysis.good(self.rows) if row["case"] == case.name]
        levels = sorted(
            {(bool(row["rate"]), row["rate"], row["connections"] * row["streams"], row["level"]) for row in rows}
        )
        for is_open, _, _, level in levels:
            of_level = [row for row in rows if row["level"] == level]
            parts.append(self._open_table(of_level) if is_open else self._closed_table(case, of_level))
        return "\n\n".join(part for part in parts if part)

    def _bare(self, case: plan.Case) -> str:
        found = self.results["ceilings"]
        parts = []
        if session := found["sessions"].get(case.work):
            parts.append(f"MindSpore's bare session {number(session)} instances/s")
        if function := found["functions"].get(case.work):
            parts.append(f"the others' functions {number(function)} instances/s")
        if case.work == "big":
            parts.append(f"memcpy of 4 MiB {number(found['memcpy_mb_s'])} MB/s")
        return f"Without a server, back to back in full batches: {', '.join(parts)}." if parts else ""

    def _closed_table(self, case: plan.Case, rows: Sequence[Row]) -> str:
        lines = []
        for row in sorted(rows, key=lambda row: -figure(row, "requests_s")):
            limit = analysis.ceiling(self.results, row, case.work, case.instances)
            share = f"{figure(row, 'requests_s') / limit[0]:.0%} ({limit[1]})" if limit else ""
            cells = [self.title(row), number(figure(row, "requests_s")), share]
            cells += [number(figure(row, name)) for name in ("p50_us", "p99_us", "p999_us", "cpu_us")]
            lines.append([*cells, number(row["memory_mb"]), self._notes(row)])
        header = [f"{rows[0]['level']} in flight", "requests/s", "of its ceiling", "p50 µs", "p99 µs", "p99.9 µs",
                  "CPU µs/request", "memory MB", ""]  # fmt: skip
        return table(header, lines)

    def _open_table(self, rows: Sequence[Row]) -> str:
        lines = []
        for row in sorted(rows, key=lambda row: figure(row, "p99_us")):
            cells = [self.title(row), number(figure(row, "requests_s")), "yes" if analysis.holds_rate(row) else "no"]
            cells += [number(figure(row, name)) for name in ("p50_us", "p90_us", "p99_us", "p999_us", "cpu_us")]
            lines.append([*cells, self._notes(row)])
        header = [f"{rows[0]['level']}, by the clock", "requests/s", "kept up", "p50 µs", "p90 µs", "p99 µs",
                  "p99.9 µs", "CPU µs/request", ""]  # fmt: skip
        return table(header, lines)

    def _notes(self, row: Row) -> str:
        measured = row["measured"]
        notes = []
        if measured["wrong"]:
            kinds = ", ".join(f"{count} x {kind}" for kind, count in measured["errors"].items())
            notes.append(f"refused: {kinds}")
        if measured["unanswered"]:
            notes.append(f"{measured['unanswered']} not answered in time")
        if measured["generator_busy"] > 0.9 and row["rival"] not in analysis.CEILINGS:
            notes.append("the load generator was full")
        return "; ".join(notes)

    def chart(self, case: plan.Case, name: str) -> str:
        """An SVG of the case's main level; empty if nothing was measured there."""
        rows = [row for row in analysis.good(self.rows) if row["case"] == case.name and row["level"] == str(case.main)]
        rows.sort(key=lambda row: figure(row, name), reverse=name == "requests_s")

        def kind(row: Row) -> str:
            return (
                "ours" if row["rival"] in analysis.OURS else "ceiling" if row["rival"] in analysis.CEILINGS else "other"
            )

        title = f"{case.name}, {case.main} in flight: {_METRICS[name]}"
        return (
            plots.bars(title, [plots.Bar(self.title(row), figure(row, name), kind(row)) for row in rows])
            if rows
            else ""
        )

    def _not_run(self) -> str:
        failed: dict[tuple[str, str], list[str]] = {}
        for row in self.rows:
            if row["error"]:
                where = " ".join(part for part in (row["case"], row["protocol"], row["level"]) if part)
                failed.setdefault((row["rival"], row["error"]), []).append(where)
        if not failed:
            return ""
        lines = [f"- **{self.rivals[name].title}** ({', '.join(where)}):\n\n{_quoted(error)}\n"
                 for (name, error), where in failed.items()]  # fmt: skip
        return "## What did not run\n\nWith the server's or the installer's own words.\n\n" + "\n".join(lines)

    def _servers(self) -> str:
        parts = ["## The servers and their settings"]
        for name, versions in self.results["versions"].items():
            rival = self.rivals[name]
            lines = "\n".join(f"- {setting}" for setting in rival.settings)
            parts.append(f"**{rival.title}**: {versions['package']}, Python {versions['python']}\n\n{lines}")
        return "\n\n".join(parts)


def _quoted(text: str) -> str:
    return "\n".join(f"      {line}" for line in text.splitlines()[-14:])


_METHOD = """## How each figure was got

- **Same work.** A work is a set of inputs and functions (`benchmarks/rivals/shared/rival_work`). All servers but
  "MindSpore Serving" run these functions: NumPy for additions and for pre- and postprocessing, onnxruntime with one
  thread for networks. "MindSpore Serving" runs MindIR files with the same weights, as its users do. "MindSpore
  Serving, others' functions" runs the very functions of the others, so that servers are compared and not kernels.
- **Checked answers.** Before any load an answer is decoded and compared with what MindSpore's executor and NumPy
  computed. Under load each answer must have that one's length, and up to 16 answers of each run are decoded and
  compared again.
- **One generator.** `benchmarks/load/load_generator.cc` sends gRPC and HTTP/1.1 to all, from one core. `64x1` is 64
  connections with one request in flight on each, `8x16` is 8 with 16 each. Rows in which the generator itself was
  full are marked.
- **Open loop.** Requests leave by the clock, however slow the server is, over 64 connections. A request's time counts
  from when it was due, also while it waits for a connection: a stall is seen by all requests that were due in it.
- **CPU a request.** Processor time of all processes that the server started, user and system, read at the beginning
  and the end of the measured time and divided by the right answers in it.
- **Memory.** Proportional set size of all these processes after the run. Ours holds MindSpore.
- **Ceilings.** `echo` is a server that sends the request back and does nothing else, sent what ours is sent, with the
  same number in flight: nghttp2 for gRPC, our HTTP/1.1 front-end for HTTP. `model` is the computation alone, back to
  back in one thread, in full batches: MindSpore's session for ours, the functions for the others. A share is of the
  lower of the two. The smaller requests of raw HTTP may pass the echo of JSON.
- **What a rival lacks** is done the way its users would: see its settings. `benchmarks/README.md` tells how to add
  one.
"""


def write(results: dict[str, Any], folder: Path) -> Path:
    """The page, its plots and the raw results; returns the page."""
    page = Page(results, all_rivals(), plan.CASES)
    beside = folder / "benchmarks"
    beside.mkdir(parents=True, exist_ok=True)
    for old in beside.glob("*.svg"):
        old.unlink()
    for case in page.cases:
        for name in ("requests_s", "cpu_us"):
            if chart := page.chart(case, name):
                (beside / f"{case.name}-{name}.svg").write_text(chart)
    (beside / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    path = folder / "benchmarks.md"
    path.write_text(page.render())
    return path
