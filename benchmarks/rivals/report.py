"""docs/benchmarks.md and its plots, from the raw results alone: a page can be made again without measuring."""

from collections.abc import Sequence
from pathlib import Path

from rivals import analysis, goals, plan, plots
from rivals import results as raw
from rivals.absent import ABSENT
from rivals.analysis import figure
from rivals.method import METHOD, READING
from rivals.reasons import REASONS
from rivals.registry import all_rivals
from rivals.results import Results, Row, Run
from rivals.rival import Rival

RAW_NAME = "results.json"
_PLOTTED = ("requests_s", "cpu_us")
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
        self.rows: Sequence[Row] = results.rows
        self.rivals = {rival.name: rival for rival in rivals}
        self.cases = [case for case in cases if case.name in results.cases]

    def title(self, row: Row) -> str:
        rival = self.rivals[row["rival"]]
        return f"{rival.title}, {rival.protocols[row['protocol']].title}"

    def render(self) -> str:
        parts = [
            self._head(),
            self._summary(),
            self._goals(),
            self._losses(),
            READING,
            self._cases(),
            self._not_run(),
            self._servers(),
            METHOD,
        ]
        return "\n\n".join(part.strip() for part in parts if part) + "\n"

    def _head(self) -> str:
        runs = "\n".join(f"- {_run_line(run)}" for run in self.results.runs)
        return f"""# Benchmarks beside other servers

Made by `./dev bench --rivals`; no line is written by hand.

{runs}

The server and all its processes are on core 0, the load generator on core 1. Only ratios within one case mean anything.
The raw results are in [benchmarks/{RAW_NAME}](benchmarks/{RAW_NAME})."""

    def _goals(self) -> str:
        rows = [[goal.what, goal.wanted, goal.got, "yes" if goal.met else "**no**"]
                for goal in goals.judged(self.results)]  # fmt: skip
        text = (
            "What the project holds itself to, as far as these cases decide it. gRPC rows are those with MindSpore's "
            "models; CPU a request and MB/s compare the best of ours with the best rival. What needs no rival (JSON "
            "alone, the client's codec, start-up, memory) is judged by `./dev bench`."
        )
        return f"## Goals\n\n{table(['what', 'goal', 'got', 'met'], rows, left=2)}\n\n{text}"

    def _summary(self) -> str:
        lines = []
        for case in self.cases:
            level = str(case.main)
            ours = analysis.best(self.rows, analysis.OURS, case.name, level)
            theirs = analysis.best(self.rows, None, case.name, level)
            if ours is None:
                continue
            line = [f"{case.name}: {case.title}", level, self.title(ours), number(figure(ours, "requests_s"))]
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
            none = "In no row is a rival ahead of the better of our two variants by more than 3 % (p99: 25 %)."
            return f"## Where we lose\n\n{none}"
        rows = [
            [one.case, one.level, _METRICS[one.what], f"{self.rivals[one.rival].title} ({one.protocol})",
             number(one.theirs), number(one.ours)]
            for one in lost
        ]  # fmt: skip
        reasons = [f"- **{name}**: {REASONS.get(name, 'not looked into yet.')}"
                   for name in dict.fromkeys(one.case for one in lost)]  # fmt: skip
        header = ["case", "level", "what", "who", "theirs", "our best"]
        return "\n\n".join(["## Where we lose", table(header, rows, left=4), "\n".join(reasons)])

    def _cases(self) -> str:
        return "\n\n".join(["## Case by case", *map(self._case, self.cases)])

    def _case(self, case: plan.Case) -> str:
        parts = [f"### {case.name}: {case.title}"]
        if len(self.results.runs) > 1:
            parts.append(f"Measured: {_run_line(self.results.run_of(case.name), short=True)}.")
        for name in _PLOTTED:
            if self.chart(case, name):
                parts.append(f"![{_METRICS[name]}](benchmarks/{case.name}-{name}.svg)")
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
        found = self.results.run_of(case.name)["ceilings"]
        parts = []
        if session := found["sessions"].get(case.work):
            alone = found.get("one_row_us", {}).get(case.work)
            note = f" (one instance alone: {number(alone)} µs)" if alone else ""
            parts.append(f"MindSpore's bare session {number(session)} instances/s{note}")
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
        for row in sorted(rows, key=lambda row: (not analysis.has_times(row), figure(row, "p99_us"))):
            cells = [self.title(row), number(figure(row, "requests_s")), "yes" if analysis.holds_rate(row) else "no"]
            times = ("p50_us", "p90_us", "p99_us", "p999_us")
            cells += [number(figure(row, name)) for name in times] if analysis.has_times(row) else ["none in time"] * 4
            lines.append([*cells, number(figure(row, "cpu_us")), self._notes(row)])
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
        if measured["generator_busy"] > 0.9:
            notes.append("the load generator was full")
        return "; ".join(notes)

    def chart(self, case: plan.Case, name: str) -> str:
        """An SVG of the case's main level, a bar for each server's best protocol; empty if nothing was measured."""
        rows = [row for row in analysis.good(self.rows) if row["case"] == case.name and row["level"] == str(case.main)]
        more_is_better = name == "requests_s"
        rows.sort(key=lambda row: figure(row, name), reverse=more_is_better)
        first = {row["rival"]: row for row in reversed(rows)}

        def kind(row: Row) -> str:
            return (
                "ours" if row["rival"] in analysis.OURS else "ceiling" if row["rival"] in analysis.CEILINGS else "other"
            )

        shown = [plots.Bar(self.title(row), figure(row, name), kind(row)) for row in rows if first[row["rival"]] is row]
        better = "more is better" if more_is_better else "less is better, logarithmic"
        title = f"{case.name}: {_METRICS[name]}, {case.main} in flight ({better})"
        return plots.bars(title, shown, logarithmic=not more_is_better) if shown else ""

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
        for name, versions in self.results.versions.items():
            rival = self.rivals[name]
            lines = "\n".join(f"- {setting}" for setting in versions.get("settings", rival.settings))
            parts.append(f"**{rival.title}**: {versions['package']}, Python {versions['python']}\n\n{lines}")
        absent = [[title, why] for title, why in ABSENT.items()]
        parts += ["Not measured:", table(["server", "why"], absent, left=2)]
        return "\n\n".join(parts)


def _run_line(run: Run, short: bool = False) -> str:
    machine, settings = run["machine"], run["settings"]
    kind = "quick" if settings["quick"] else "full"
    when = (
        f"{run['date']}, a {kind} run of {number(settings['minutes'])} minutes, {settings['seconds']:g} s of load each"
    )
    load = f"load before it {machine['load_average_before']:.1f}"
    if short:
        return f"{when}, {load}"
    system = f"{machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']} {machine['kernel']}"
    return f"{when}: {', '.join(run['cases'])}. {machine['processor']}, {system}; {load}."


def _quoted(text: str) -> str:
    return "\n".join(f"      {line}" for line in text.splitlines()[-14:])


def write(results: Results, folder: Path) -> Path:
    """The page, its plots and the raw results; returns the page."""
    page = Page(results, all_rivals(), plan.CASES)
    beside = folder / "benchmarks"
    beside.mkdir(parents=True, exist_ok=True)
    for old in beside.glob("*.svg"):
        old.unlink()
    for case in page.cases:
        for name in _PLOTTED:
            if chart := page.chart(case, name):
                (beside / f"{case.name}-{name}.svg").write_text(chart)
    raw.write(results, beside / RAW_NAME)
    path = folder / "benchmarks.md"
    path.write_text(page.render())
    return path
