"""Measures ours beside its rivals: `./dev bench --rivals` builds what this needs and calls it.

Writes docs/benchmarks.md with its plots, and the raw results beside it. A long run can be made in parts: with --merge
the cases that were measured before stay, and --resume measures only what is not there yet.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "support")]

from rivals import ceilings, environment, install, plan, report  # noqa: E402
from rivals import results as raw  # noqa: E402
from rivals.loads import LoadGenerator  # noqa: E402
from rivals.loopback import keep_to_loopback  # noqa: E402
from rivals.measure import Row, Surroundings, run_job  # noqa: E402
from rivals.registry import WORK, all_rivals  # noqa: E402
from rivals.rival import Rival  # noqa: E402

QUICK_SECONDS, QUICK_WARM_UP = 1.0, 0.2
FULL_SECONDS, FULL_WARM_UP = 3.0, 1.0
QUICK_MINUTES = 18.0
CEILING_SECONDS = 5  # what the bare sessions and the functions of one work take, imports and all


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench --rivals", description=__doc__)
    parser.add_argument(
        "--only", default="", metavar="NAMES", help="rivals, with commas between them; ours always runs"
    )
    parser.add_argument("--cases", default="", metavar="NAMES", help="cases, with commas between them")
    parser.add_argument("--quick", action="store_true", help="fewer levels of load, short runs: some 17 minutes")
    parser.add_argument("--seconds", type=float, help="of each run, without its warm-up")
    parser.add_argument("--budget-minutes", type=float, help="what does not fit is left out, and said so (quick: 18)")
    parser.add_argument(
        "--build", type=Path, default=ROOT / "build" / "release", help="where the benchmark programs are"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder of benchmarks.md (default: docs)")
    parser.add_argument(
        "--start-limit", type=float, default=60, help="seconds that a server may take to its first answer"
    )
    parser.add_argument("--no-install", action="store_true", help="rivals that are not installed are reported so")
    parser.add_argument("--plan", action="store_true", help="print what would be run and how long it takes, and stop")
    parser.add_argument("--merge", action="store_true", help="keep the other cases of earlier results, each as it was")
    parser.add_argument("--resume", action="store_true", help="--merge, and leave out cases that are there already")
    parser.add_argument(
        "--render", type=Path, nargs="+", metavar="JSON",
        help="measure nothing: one report from the results of several runs; of a case the last one counts",
    )  # fmt: skip
    return parser.parse_args(arguments)


def named(what: str, names: str, known: Sequence[str]) -> list[str]:
    chosen = [name for name in names.split(",") if name]
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise SystemExit(f"no such {what}: {', '.join(unknown)}; there are: {', '.join(known)}")
    return chosen or list(known)


def select(arguments: argparse.Namespace) -> tuple[list[Rival], list[plan.Case]]:
    rivals = all_rivals()
    chosen = named("rival", arguments.only, [rival.name for rival in rivals])
    cases = named("case", arguments.cases, [case.name for case in plan.CASES])
    return (
        [rival for rival in rivals if rival.name in chosen or rival.name == "ours" or rival.ceiling],
        [case for case in plan.CASES if case.name in cases],
    )


def say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def need_models(folder: Path, works: Sequence[str]) -> None:
    missing = [work for work in works if not (folder / "expected" / f"{work}-1.npz").exists()]
    if not missing:
        return
    say(f"making models and right answers: {', '.join(missing)}")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")}
    command = [sys.executable, "-m", "rivals.models", str(folder), *missing]
    subprocess.run(command, check=True, env=env, timeout=600)


def packages_of(rival: Rival) -> list[Path]:
    return [install.ENVIRONMENTS / rival.folder] if rival.packages_beside else []


def print_plan(jobs: Sequence[plan.Job], each: float) -> None:
    for job in jobs:
        levels = "; ".join(
            f"{part.case.name} {part.protocol}: {', '.join(map(str, part.levels))}" for part in job.parts
        )
        print(f"{job.rival.name:16} {job.seconds(each):5.0f} s  {levels}")
    for work in dict.fromkeys(job.work for job in jobs):
        minutes = sum(job.seconds(each) for job in jobs if job.work == work) / 60
        print(f"{work:16} {minutes:5.1f} minutes")


def measure(jobs: Sequence[plan.Job], arguments: argparse.Namespace, seconds: float, budget: float | None,
            done: Callable[[str, list[Row]], None]) -> None:  # fmt: skip
    """Calls `done` with the rows of each work when all its jobs are."""
    scratch = WORK / "scratch"
    where = Surroundings(
        WORK / "models", arguments.build, scratch, install.interpreter, packages_of, arguments.start_limit
    )
    warm_up = QUICK_WARM_UP if arguments.quick else FULL_WARM_UP
    generator = LoadGenerator(arguments.build / "benchmarks" / "load_generator", scratch, seconds, warm_up)
    broken = {job.rival.name: install.install_error(job.rival) for job in jobs}
    began = time.monotonic()
    rows: list[Row] = []

    def fail(job: plan.Job, why: str) -> None:
        rows.extend(Row(job.rival.name, part.case.name, part.protocol, error=why) for part in job.parts)

    for number, job in enumerate(jobs, 1):
        spent = time.monotonic() - began
        if broken[job.rival.name]:
            fail(job, broken[job.rival.name])
        elif budget is not None and spent + job.seconds(seconds + warm_up) > budget:
            fail(job, raw.TIME_WAS_UP)
        else:
            say(f"[{number}/{len(jobs)}, {spent / 60:.1f} min] {job.work}: {job.rival.title}")
            try:
                for row in run_job(job, where, generator, say):
                    if row.error:
                        say(f"{row.rival} {row.case} {row.protocol}: {row.error.splitlines()[0][:150]}")
                    rows.append(row)
            except Exception as error:  # a rival's trouble is not the run's
                fail(job, str(error) or repr(error))
        if number == len(jobs) or jobs[number].work != job.work:
            done(job.work, rows)
            rows = []


def main() -> int:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # servers under test end with the run
    if arguments.render:
        report.write(raw.merged([raw.read(path) for path in arguments.render]), arguments.output)
        return 0
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("two cores are needed: one for the server, one for the load")
    rivals, cases = select(arguments)
    seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else FULL_SECONDS)
    settings = {"seconds": seconds, "quick": arguments.quick}
    stored = arguments.output / "benchmarks" / report.RAW_NAME
    earlier = raw.read(stored) if arguments.merge or arguments.resume else raw.Results([])
    if arguments.resume:
        there = raw.measured_so(earlier, settings)
        cases = [case for case in cases if case.name not in there]
    jobs = plan.jobs(rivals, cases, quick=arguments.quick)
    each = seconds + (QUICK_WARM_UP if arguments.quick else FULL_WARM_UP)
    budget_minutes = arguments.budget_minutes or (QUICK_MINUTES if arguments.quick else None)
    works = list(dict.fromkeys(case.work for case in cases))
    estimate = sum(job.seconds(each) for job in jobs) + CEILING_SECONDS * len(works)
    print(f"{len(rivals)} servers, {len(cases)} cases, about {estimate / 60:.0f} minutes once everything is installed"
          + (f"; limited to {budget_minutes:g}" if budget_minutes else ""), file=sys.stderr, flush=True)  # fmt: skip
    if arguments.plan:
        print_plan(jobs, each)
        return 0
    if not arguments.no_install:
        install.install_missing(rivals)
    need_models(WORK / "models", works)
    if reason := keep_to_loopback():
        say(f"some of the servers listen on all interfaces, and cannot be kept from it here: {reason}")
    began = time.monotonic()
    say("ceilings: bare sessions, bare functions, memcpy")
    beside = next(rival for rival in all_rivals() if rival.packages_beside)
    python = None if install.install_error(beside) else install.interpreter(beside)
    run = {
        "date": date.today().isoformat(),
        "machine": environment.machine(),
        "settings": settings,
        "versions": {rival.name: environment.versions(rival) for rival in rivals},
        "ceilings": ceilings.measure(works, WORK / "models", arguments.build, python, packages_of(beside)).as_json(),
    }
    budget = None if budget_minutes is None else budget_minutes * 60 - (time.monotonic() - began)
    rows: list[Row] = []

    def save(_work: str, more: list[Row]) -> None:
        """After each work, so that an interrupted run can be resumed."""
        rows.extend(more)
        names = list(dict.fromkeys(row.case for row in rows))
        settings["minutes"] = (time.monotonic() - began) / 60
        so_far = raw.Results([{**run, "cases": names, "rows": [row.as_json() for row in rows]}])
        say(f"wrote {report.write(raw.merged([earlier, so_far]), arguments.output)}")

    measure(jobs, arguments, seconds, budget, save)
    return 1 if any(row.error and row.rival == "ours" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
