"""The budget that `benchmarks/run.py` prints: what its rows are made of, and how they are judged."""

from pathlib import Path

import pytest

from cases import ceilings, codec, distributed, lifecycle, models, open_loop, serving
from harness import budget, record
from harness.case import Outcome, Sample
from harness.table import render_budget, render_rates
from run import readme_table

ROWS = budget.rows(serving.BIG_MB)


def case_names():
    folder = Path("nowhere")
    env = {"BENCH_SERVABLE_DIRECTORY": "nowhere"}
    listed = [
        *lifecycle.cases(folder, env), *ceilings.cases(folder, folder), *serving.cases(folder), *codec.cases(folder),
        *models.cases(folder, folder), *distributed.cases(folder),
        *open_loop.cases(folder, folder, lambda name: None, 1),
    ]  # fmt: skip
    return {case.name: case for case in listed}


def load(rate=1000.0, p50_us=100.0, cpu_us=10.0):
    return Outcome(samples=[Sample(rate, p50_us, 2 * p50_us, cpu_us)])


def figure(value):
    return Outcome(figures=[value])


def judged(outcomes):
    return {(what, limit): (got, met) for what, limit, got, met in budget.judged(ROWS, outcomes)}


def test_every_row_is_made_of_cases_that_there_are():
    names = case_names()
    assert {case for row in ROWS for case in row.cases} <= set(names)
    assert set(budget.OLD) <= set(names)
    assert {case.against for case in names.values()} - {""} <= set(names)


def test_rows_without_their_cases_are_left_out():
    assert budget.judged(ROWS, {}) == []
    assert budget.judged(ROWS, {"addb-64x1": Outcome(error="it broke")}) == []
    assert list(judged({"addb-64x1": load()})) == [("addb, gRPC 64x1", "≤ 25 µs CPU")]


@pytest.mark.parametrize(("cpu_us", "met"), [(25.0, "yes"), (25.1, "no")])
def test_a_limit_holds_what_it_says(cpu_us, met):
    assert judged({"addb-64x1": load(cpu_us=cpu_us)})["addb, gRPC 64x1", "≤ 25 µs CPU"] == (f"{cpu_us} µs", met)


@pytest.mark.parametrize(("rate", "got", "met"), [(600, "60%", "yes"), (590, "59%", "no")])
def test_shares_are_of_the_ceiling_in_the_same_run(rate, got, met):
    outcomes = {"addb-64x1": load(rate=rate), "bare-64x1": load(rate=1000)}
    assert judged(outcomes)["addb, gRPC 64x1", "≥ 60 % of the bare echo"] == (got, met)
    outcomes = {"add-64x1": load(rate=rate), "executor-add": figure(750.0)}
    assert judged(outcomes)["add, gRPC 64x1", "≥ 80 % of MindSpore's own executor"] == (
        f"{rate / 750:.0%}",
        "yes" if rate >= 600 else "no",
    )


def test_instances_count_and_not_requests():
    row = judged({"add-16i": load(rate=100), "executor-add": figure(2000.0)})
    assert row["add, 16 instances a request", "≥ 80 % of MindSpore's own executor"] == ("80%", "yes")


@pytest.mark.parametrize(("p50_us", "got", "met"), [(1060, "1,000 + 60 µs", "yes"), (1061, "1,000 + 61 µs", "no")])
def test_one_connection_is_compared_with_the_models_own_time(p50_us, got, met):
    row = judged({"mlp-1x1": load(p50_us=p50_us), "session-mlp-1": figure(1000.0)})
    assert row["MLP 784-512-10, one connection", "p50: the model's own time + 60 µs"] == (got, met)


@pytest.mark.parametrize(("rows_s", "got", "met"), [
    (32_000.0, "90%", "no"), (32_001.0, "90%, runs of 1,000 µs", "-"), (20_000.0, "144%", "yes"),
])  # fmt: skip
def test_models_of_short_runs_are_not_held_to_the_share_of_the_bare_session(rows_s, got, met):
    row = judged({"mlp-full": load(rate=28_800), "session-mlp": figure(rows_s)})
    limit = "≥ 95 % of the bare session, once a run takes 1 ms"
    assert row["MLP 784-512-10, full batches", limit] == (got, met)


def test_the_median_of_all_repetitions_is_judged():
    outcome = Outcome(figures=[14.0, 30.0, 15.0])
    assert judged({"json-row": outcome})["784 floats of JSON, read and written", "≤ 15 µs CPU"] == ("15.0 µs", "yes")


def test_the_table_has_a_line_for_each_row():
    text = render_budget(budget.judged(ROWS, {"addb-64x1": load(cpu_us=30)}), markdown=True)
    assert text.splitlines()[0].startswith("| budget of")
    assert text.splitlines()[2].split("|")[1:5] == [" addb, gRPC 64x1 ", " ≤ 25 µs CPU ", " 30.0 µs ", " no  "]


def test_latencies_at_fixed_rates_are_a_table_of_their_own():
    assert open_loop.table({}) == []
    outcomes = {"open-peak": figure(10_000.0)}
    for share in open_loop.SHARES:
        for at, (name, *_) in enumerate(open_loop.COLUMNS):
            outcomes[f"open-{share}-{name}"] = figure(share * 10.0 + at)
    header, *lines = open_loop.table(outcomes)
    assert header[1:] == ["req/s", "p50, µs", "p99, µs", "p99.9, µs", "refused, %"]
    assert lines[0] == ["25 % of the peak", "2,500", "250", "251", "252", "253"]
    assert len(lines) == len(open_loop.SHARES)
    del outcomes["open-75-p99"]
    outcomes["open-75-p99"] = Outcome(error="it broke")
    assert len(open_loop.table(outcomes)) == len(open_loop.SHARES)
    assert len(render_rates([header, *lines], markdown=True).splitlines()) == 5


def test_nothing_has_no_spread():
    assert figure(0.0).spread == 0.0
    assert Outcome(figures=[1.0, 2.0, 3.0]).spread == 1.0


def test_the_table_of_the_readme_is_what_is_kept():
    made = readme_table()
    assert "addb, gRPC 64x1" in made
    assert record.in_readme(record.README) == made + "\n", "make it again: benchmarks/run.py --readme-only"


def test_what_is_kept_comes_back_and_failures_change_nothing(tmp_path):
    file = tmp_path / "own.json"
    outcome = Outcome(samples=[Sample(100.0, 1.0, 2.0, 3.0), Sample(110.0, 1.0, 2.0, 3.0)])
    record.store({"a": outcome, "b": figure(5.0)}, "first", file)
    record.store({"a": Outcome(error="it broke"), "b": figure(6.0)}, "second", file)
    kept = record.read(file)
    assert (kept["a"].median("rate"), kept["a"].spread, kept["a"].run) == (105.0, outcome.spread, "first")
    assert (kept["b"].figure, kept["b"].run) == (6.0, "second")


def test_ratios_are_of_one_run_and_other_runs_are_named():
    cases = case_names()
    chosen = [cases["bare-64x1"], cases["addb-64x1"]]
    outcomes = {"bare-64x1": load(rate=200), "addb-64x1": load(rate=100)}
    assert "50% rate" in record.table(chosen, outcomes)
    outcomes["addb-64x1"].run = "another run"
    text = record.table(chosen, outcomes)
    assert "50% rate" not in text
    assert "| addb, gRPC 64x1 (b) " in text
    assert "(b): another run." in text


def test_only_what_lies_between_the_marks_is_replaced(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(record.README.read_text())
    before = readme.read_text().splitlines()
    record.write_readme("| new |", readme)
    after = readme.read_text()
    assert record.in_readme(readme) == "| new |\n"
    assert after.splitlines()[:5] == before[:5]
    assert after.splitlines()[-1] == before[-1]
