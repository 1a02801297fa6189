"""The one table, for a terminal or as Markdown."""

from collections.abc import Mapping, Sequence

from harness.case import FigureCase, LoadCase, Outcome

HEADER = ["case", "requests/s", "p50 µs", "p99 µs", "CPU µs/request", "carries", "spread", "against", "goal"]

Case = LoadCase | FigureCase


def _against(case: Case, outcomes: Mapping[str, Outcome]) -> str:
    other = outcomes.get(case.against)
    mine = outcomes[case.name]
    if other is None or other.error or other.run != mine.run:
        return ""
    if isinstance(case, FigureCase):
        return f"{mine.figure - other.figure:+.2f} {case.unit} on {case.against}" if other.figures else ""
    if other.figures and case.name.endswith("-1x1"):
        return f"{mine.median('p50_us') - 1e6 / other.figure:+,.0f} µs on a run of {case.against}"
    if other.figures:  # a plain loop's runs a second
        return f"{mine.median('rate') * case.units / other.figure:.0%} of {case.against}"
    rate, cpu = mine.median("rate") / other.median("rate"), mine.median("cpu_us") / other.median("cpu_us")
    return f"{rate:.0%} rate, {cpu:.0%} CPU of {case.against}"


def _row(case: Case, outcomes: Mapping[str, Outcome]) -> list[str]:
    outcome = outcomes[case.name]
    if outcome.error:
        return [case.title, "FAILED", "", "", "", "", "", outcome.error.splitlines()[0][:60], case.goal]
    spread = f"{outcome.spread:.0%}"
    if isinstance(case, FigureCase):
        figure = f"{outcome.figure:,.2f} {case.unit}" if outcome.figure < 100 else f"{outcome.figure:,.0f} {case.unit}"
        return [case.title, "", "", "", "", figure, spread, _against(case, outcomes), case.goal]
    rate = outcome.median("rate")
    return [
        case.title,
        f"{rate:,.0f}" if rate >= 100 else f"{rate:,.1f}",
        f"{outcome.median('p50_us'):,.0f}",
        f"{outcome.median('p99_us'):,.0f}",
        f"{outcome.median('cpu_us'):,.1f}",
        f"{rate * case.units:,.0f} {case.unit}" if case.unit else "",
        spread,
        _against(case, outcomes),
        case.goal,
    ]


def render(cases: Sequence[Case], outcomes: Mapping[str, Outcome], markdown: bool) -> str:
    return _table([HEADER] + [_row(case, outcomes) for case in cases], range(1, 7), markdown)


def render_budget(rows: Sequence[tuple[str, str, str, str]], markdown: bool) -> str:
    return _table([["budget of", "budget", "got", "met"], *map(list, rows)], range(2, 3), markdown)


def render_rates(rows: Sequence[list[str]], markdown: bool) -> str:
    return _table(list(rows), range(1, len(rows[0])), markdown)


def _table(rows: list[list[str]], right: range, markdown: bool) -> str:
    """The first row is the header; columns in `right` are aligned to the right."""
    columns = range(len(rows[0]))
    widths = [max(len(row[column]) for row in rows) for column in columns]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(cells) + " |" if markdown else "  ".join(cells).rstrip()

    rule = ["-" * widths[column] for column in columns]
    if markdown:
        rule = [dashes[:-1] + ":" if column in right else dashes for column, dashes in enumerate(rule)]
    return "\n".join([line(rows[0]), line(rule), *map(line, rows[1:])])
