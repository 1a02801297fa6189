"""What the project holds itself to beside other servers, and whether the run met it. Only goals that a run can decide
are here; a goal whose rows were not measured is left out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rivals import analysis, plan
from rivals.analysis import OURS, figure
from rivals.results import Results, Row

from rival_work.works import WORKS  # isort: skip  (rivals.plan has made it importable)

OLD = "old"
# Batched cases of small models, in which a request must cost this much less than at the cheapest rival.
SMALL = ("addb", "add", "mlp", "prepost", "pipeline", "lenet")
LONG_RUN_US = 1000.0  # "once the model takes 1 ms"


@dataclass(frozen=True)
class Goal:
    what: str
    wanted: str
    got: str
    met: bool


class _Rows:
    """Finds the rows that goals speak of."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self._good = analysis.good(results.rows)

    def best(self, who: Iterable[str] | None, case: str, level: str, name: str = "requests_s") -> Row | None:
        return analysis.best(self._good, who, case, level, name)

    def of(self, who: str, case: str, level: str, protocol: str) -> Row | None:
        wanted = (who, case, level, protocol)
        found = (row for row in self._good if (row["rival"], row["case"], row["level"], row["protocol"]) == wanted)
        return next(found, None)

    def echo(self, case: str, level: str) -> Row | None:
        return self.of("echo-grpc", case, level, "grpc")


def _times(mine: Row | None, other: Row | None, name: str = "requests_s") -> float | None:
    """How far ahead `mine` is: more of requests, less of anything else."""
    if mine is None or other is None:
        return None
    ratio = figure(mine, name) / figure(other, name)
    return ratio if name == "requests_s" else 1 / ratio


def _goal(what: str, wanted: str, value: float | None, met: Callable[[float], bool], form: str) -> list[Goal]:
    return [] if value is None else [Goal(what, wanted, form.format(value), met(value))]


def _at_least(what: str, limit: float, than: str, value: float | None) -> list[Goal]:
    return _goal(what, f"≥ {limit:g} x {than}", value, lambda got: got >= limit, "{:.1f} x")


def _ours_grpc(rows: _Rows, case: str, level: str) -> Row | None:
    """With MindSpore's model, as users run it."""
    return rows.of("ours", case, level, "grpc")


def _addb(rows: _Rows) -> list[Goal]:
    many, streams = str(plan.C64), str(plan.STREAMS)
    ours, wide = _ours_grpc(rows, "addb", many), _ours_grpc(rows, "addb", streams)
    goals = []
    if ours is not None:
        goals += _goal(f"addb, gRPC {many}", "≤ 25 µs CPU a request", figure(ours, "cpu_us"), lambda got: got <= 25,
                       "{:.1f} µs")  # fmt: skip
        share = _times(ours, rows.echo("addb", many))
        goals += _goal(f"addb, gRPC {many}", "≥ 60 % of the bare echo", share, lambda got: got >= 0.6, "{:.0%}")
    if wide is not None:
        goals += _goal(f"addb, gRPC {streams}", "≤ 10 µs CPU a request", figure(wide, "cpu_us"),
                       lambda got: got <= 10, "{:.1f} µs")  # fmt: skip
    old = rows.of(OLD, "addb", streams, "grpc")
    goals += _at_least(f"addb, gRPC {streams}", 8, "the old package", _times(wide, old))
    goals += _at_least(f"addb, gRPC {streams}", 5, "the best rival", _times(wide, rows.best(None, "addb", streams)))
    return goals


def _small(rows: _Rows) -> list[Goal]:
    goals = []
    for case in SMALL:
        mine, theirs = (rows.best(who, case, str(plan.C64), "cpu_us") for who in (OURS, None))
        goals += _at_least(f"{case}, {plan.C64}: CPU a request", 2.5, "less than any rival",
                           _times(mine, theirs, "cpu_us"))  # fmt: skip
    return goals


def _against_old(rows: _Rows) -> list[Goal]:
    goals = []
    for case, level, limit in (("add", plan.C64, 3), ("prepost", plan.C64, 5), ("addb-16i", plan.C16, 10)):
        value = _times(_ours_grpc(rows, case, str(level)), rows.of(OLD, case, str(level), "grpc"))
        goals += _at_least(f"{case}, gRPC {level}", limit, "the old package", value)
    for level in map(str, (plan.C1, plan.C4)):
        ours = rows.best(OURS, "big", level)
        goals += _at_least(f"big, {level}: MB/s", 3, "the old package", _times(ours, rows.best((OLD,), "big", level)))
        goals += _at_least(f"big, {level}: MB/s", 1.5, "the best rival", _times(ours, rows.best(None, "big", level)))
    return goals


def _rest(rows: _Rows) -> list[Goal]:
    goals = []
    for case in ("addb", "add"):
        for who in OURS:
            rest, grpc = (rows.of(who, case, str(plan.C64), protocol) for protocol in ("rest", "grpc"))
            goals += _goal(f"{case}, {who}, REST {plan.C64}", "≥ 75 % of gRPC", _times(rest, grpc),
                           lambda got: got >= 0.75, "{:.0%}")  # fmt: skip
    return goals


def _models(rows: _Rows) -> list[Goal]:
    goals = []
    for case in plan.CASES:
        if case.name not in rows.results.cases or case.instances != 1 or len(WORKS[case.work].stages) > 1:
            continue  # Python stages are not in the model's own time
        ceilings = rows.results.run_of(case.name)["ceilings"]
        bare, one_us = ceilings["sessions"].get(case.work), ceilings.get("one_row_us", {}).get(case.work)
        full = rows.best(("ours",), case.name, str(case.main))
        if bare and full and WORKS[case.work].max_batch / bare * 1e6 >= LONG_RUN_US:
            goals += _goal(f"{case.name}, {case.main}", "≥ 95 % of the bare session", figure(full, "requests_s") / bare,
                           lambda got: got >= 0.95, "{:.0%}")  # fmt: skip
        alone = rows.of("ours", case.name, str(plan.C1), "grpc")
        if one_us and alone:
            more = figure(alone, "p50_us") - one_us
            goals.append(Goal(f"{case.name}, gRPC, one in flight", "p50 ≤ the model's own time + 60 µs",
                              f"{one_us:,.0f} {more:+,.0f} µs", more <= 60))  # fmt: skip
    return goals


def judged(results: Results) -> list[Goal]:
    rows = _Rows(results)
    lost = len(analysis.losses(results))
    last = Goal("all cases, levels and figures", "a rival ahead in none", f"ahead in {lost}", not lost)
    return [*_addb(rows), *_small(rows), *_against_old(rows), *_rest(rows), *_models(rows), last]
