"""The budget: what the project holds itself to, beside what the run gave. Rows whose cases did not run are left out.

Figures of the old package (mindspore-serving 2.0.2) are of another run on a machine like this one; rows that need them
say so, and `./dev bench --rivals` is where it is measured in the same run.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.case import Outcome

Outcomes = Mapping[str, Outcome]
_MET = {True: "yes", False: "no", None: "-"}

# Requests a second of the old package over gRPC, but for `big-*`: MB/s, and `16i`: instances a second.
OLD = {"addb-8x16": 16_400, "add-64x1": 3_400, "cast": 2_020, "addb-16i": 34_000, "big-c1": 281, "big-c4": 383}


LONG_RUN_US = 1000.0  # "once a run takes 1 ms"


@dataclass(frozen=True)
class Verdict:
    got: str
    met: bool | None  # None: the goal is not about such a case


@dataclass(frozen=True)
class Row:
    what: str
    budget: str
    cases: tuple[str, ...]  # that it is made of
    judge: Callable[[Outcomes], Verdict]


def _at_most(case: str, figure: str, limit: float, unit: str) -> Callable[[Outcomes], Verdict]:
    def judge(outcomes: Outcomes) -> Verdict:
        value = outcomes[case].figure if figure == "figure" else outcomes[case].median(figure)
        return Verdict(f"{value:,.1f} {unit}", value <= limit)

    return judge


def _share(case: str, other: str, least: float, units: float = 1) -> Callable[[Outcomes], Verdict]:
    """The rate of `case` as a share of that of `other`, which may be a plain loop's figure."""

    def judge(outcomes: Outcomes) -> Verdict:
        ceiling = outcomes[other].figure if outcomes[other].figures else outcomes[other].median("rate")
        share = outcomes[case].median("rate") * units / ceiling
        return Verdict(f"{share:.0%}", share >= least)

    return judge


def _times_old(case: str, least: float, units: float = 1) -> Callable[[Outcomes], Verdict]:
    def judge(outcomes: Outcomes) -> Verdict:
        times = outcomes[case].median("rate") * units / OLD[case]
        return Verdict(f"{times:.1f} times", times >= least)

    return judge


def _own_time_and(case: str, model: str, more_us: float) -> Callable[[Outcomes], Verdict]:
    """p50 less the model's own time."""

    def judge(outcomes: Outcomes) -> Verdict:
        own_us = 1e6 / outcomes[model].figure
        more = outcomes[case].median("p50_us") - own_us
        return Verdict(f"{own_us:,.0f} + {more:,.0f} µs", more <= more_us)

    return judge


def _distributed(outcomes: Outcomes) -> Verdict:
    bare = outcomes["distributed-bare"].figure
    more = outcomes["distributed-1x1"].median("p50_us") - bare
    return Verdict(f"{bare:,.0f} {more:+,.0f} µs", more <= 150)


def _start_up(outcomes: Outcomes) -> Verdict:
    more = outcomes["start-up"].figure - outcomes["bare-load"].figure
    return Verdict(f"{more:+.2f} s", more <= 0.3)


def _share_of_long_runs(case: str, model: str, batch: int, least: float) -> Callable[[Outcomes], Verdict]:
    """The share of the bare session, decided where a run of `batch` rows takes long enough."""

    def judge(outcomes: Outcomes) -> Verdict:
        verdict = _share(case, model, least)(outcomes)
        run_us = batch * 1e6 / outcomes[model].figure
        return verdict if run_us >= LONG_RUN_US else Verdict(f"{verdict.got}, runs of {run_us:,.0f} µs", None)

    return judge


def _of_model(name: str, title: str, batch: int) -> list[Row]:
    full, one = f"session-{name}", f"session-{name}-1"
    return [
        Row(f"{title}, full batches", "≥ 95 % of the bare session, once a run takes 1 ms", (f"{name}-full", full),
            _share_of_long_runs(f"{name}-full", full, batch, 0.95)),
        Row(f"{title}, one connection", "p50: the model's own time + 60 µs", (f"{name}-1x1", one),
            _own_time_and(f"{name}-1x1", one, 60)),
    ]  # fmt: skip


def rows(big_mb: float) -> list[Row]:
    """`big_mb`: what a request of the large tensors carries."""
    return [
        Row("2 ranks, one connection", "p50: the bare AllReduce run + 150 µs", ("distributed-bare", "distributed-1x1"),
            _distributed),
        Row("addb, gRPC 64x1", "≤ 25 µs CPU", ("addb-64x1",), _at_most("addb-64x1", "cpu_us", 25, "µs")),
        Row("addb, gRPC 64x1", "≥ 60 % of the bare echo", ("addb-64x1", "bare-64x1"),
            _share("addb-64x1", "bare-64x1", 0.6)),
        Row("addb, gRPC 8x16", "≤ 10 µs CPU", ("addb-8x16",), _at_most("addb-8x16", "cpu_us", 10, "µs")),
        Row("addb, gRPC 8x16", "≥ 8 times the old package (other run)", ("addb-8x16",), _times_old("addb-8x16", 8)),
        Row("add, gRPC 64x1", "≥ 80 % of MindSpore's own executor", ("add-64x1", "executor-add"),
            _share("add-64x1", "executor-add", 0.8)),
        Row("add, gRPC 64x1", "≥ 3 times the old package (other run)", ("add-64x1",), _times_old("add-64x1", 3)),
        Row("add, one connection", "p50: the model's own time + 60 µs", ("add-1x1", "session-add"),
            _own_time_and("add-1x1", "session-add", 60)),
        Row("addb over REST, 64x1", "≥ 75 % of gRPC", ("addb-rest", "addb-64x1"),
            _share("addb-rest", "addb-64x1", 0.75)),
        Row("add over REST, 64x1", "≥ 75 % of gRPC", ("add-rest", "add-64x1"), _share("add-rest", "add-64x1", 0.75)),
        Row("cast in Python, then addb, 64x1", "≥ 5 times the old package (other run)", ("cast",),
            _times_old("cast", 5)),
        Row("addb, 16 instances a request", "≥ 10 times the old package (other run)", ("addb-16i",),
            _times_old("addb-16i", 10, units=16)),
        Row("add, 16 instances a request", "≥ 80 % of MindSpore's own executor", ("add-16i", "executor-add"),
            _share("add-16i", "executor-add", 0.8, units=16)),
        Row("4 MiB in, 2 MiB out, 1x1", "≥ 3 times the old package (other run)", ("big-c1",),
            _times_old("big-c1", 3, units=big_mb)),
        Row("4 MiB in, 2 MiB out, 4x1", "≥ 3 times the old package (other run)", ("big-c4",),
            _times_old("big-c4", 3, units=big_mb)),
        Row("21 MB of JSON numbers", "≤ 150,000 µs", ("json-21mb",), _at_most("json-21mb", "p50_us", 150_000, "µs")),
        Row("784 floats of JSON, read and written", "≤ 15 µs CPU", ("json-row",),
            _at_most("json-row", "figure", 15, "µs")),
        *_of_model("mlp", "MLP 784-512-10", 32),
        *_of_model("lenet", "digits LeNet", 32),
        *_of_model("resnet50", "ResNet-50", 4),
        Row("start of a servable to ready", "MindSpore's own time + 0.30 s", ("start-up", "bare-load"), _start_up),
        Row("memory of the server process, idle", "≤ 40 MB", ("memory",), _at_most("memory", "figure", 40, "MB")),
    ]  # fmt: skip


def judged(listed: list[Row], outcomes: Outcomes) -> list[tuple[str, str, str, str]]:
    """What, budget, got, and whether it is met, of the rows whose cases ran."""
    table = []
    for row in listed:
        ran = [outcomes.get(case) for case in row.cases]
        if all(one is not None and not one.error and (one.samples or one.figures) for one in ran):
            verdict = row.judge(outcomes)
            table.append((row.what, row.budget, verdict.got, _MET[verdict.met]))
    return table
