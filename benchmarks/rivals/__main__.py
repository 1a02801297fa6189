"""Measures ours beside its rivals: `./dev bench --rivals` builds what this needs and calls it.

Writes docs/benchmarks.md with its plots, and the raw results beside it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests" / "support")]

from rivals import ceilings, environment, install, plan, report  # noqa: E402
from rivals.loads import LoadGenerator  # noqa: E402
from rivals.measure import Row, Surroundings, run_job  # noqa: E402
from rivals.registry import WORK, all_rivals  # noqa: E402
from rivals.rival import Rival  # noqa: E402

QUICK_SECONDS, QUICK_WARM_UP = 1.0, 0.2
FULL_SECONDS, FULL_WARM_UP = 3.0, 1.0
CEILING_SECONDS = 25  # what a bare session and the functions of one work take, imports and all, is about 5


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench --rivals", description=__doc__)
    parser.add_argument(
        "--only", default="", metavar="NAMES", help="rivals, with commas between them; ours always runs"
    )
    parser.add_argument("--cases", default="", metavar="NAMES", help="cases, with commas between them")
    parser.add_argument("--quick", action="store_true", help="fewer levels of load, short runs: some twelve minutes")
    parser.add_argument("--seconds", type=float, help="of each run, without its warm-up")
    parser.add_argument("--budget-minutes", type=float, help="what does not fit is left out, and said so (quick: 12)")
    parser.add_argument(
        "--build", type=Path, default=ROOT / "build" / "release", help="where the benchmark programs are"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder of benchmarks.md (default: docs)")
    parser.add_argument(
        "--start-limit", type=float, default=60, help="seconds that a server may take to its first answer"
    )
    parser.add_argument("--no-install", action="store_true", help="rivals that are not installed are reported so")
    parser.add_argument("--plan", action="store_true", help="print what would be run and how long it takes, and stop")
    parser.add_argument("--render", type=Path, metavar="JSON", help="measure nothing: the report from earlier results")
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


def measure(jobs: Sequence[plan.Job], arguments: argparse.Namespace, seconds: float, budget: float | None) -> list[Row]:
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
        if broken[job.rival.name]:
            fail(job, broken[job.rival.name])
            continue
        spent = time.monotonic() - began
        if budget is not None and spent + job.seconds(seconds + warm_up) > budget:
            fail(job, "not run: the time for this run was up")
            continue
        print(
            f"[{number}/{len(jobs)}, {spent / 60:.1f} min] {job.work}: {job.rival.title}", file=sys.stderr, flush=True
        )
        try:
            for row in run_job(job, where, generator, say):
                if row.error:
                    say(f"{row.rival} {row.case} {row.protocol}: {row.error.splitlines()[0][:150]}")
                rows.append(row)
        except Exception as error:  # a rival's trouble is not the run's
            fail(job, str(error) or repr(error))
    return rows


def main() -> int:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # servers under test end with the run
    if arguments.render:
        report.write(json.loads(arguments.render.read_text()), arguments.output)
        return 0
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("two cores are needed: one for the server, one for the load")
    rivals, cases = select(arguments)
    jobs = plan.jobs(rivals, cases, quick=arguments.quick)
    seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else FULL_SECONDS)
    each = seconds + (QUICK_WARM_UP if arguments.quick else FULL_WARM_UP)
    budget_minutes = arguments.budget_minutes or (12.0 if arguments.quick else None)
    works = list(dict.fromkeys(case.work for case in cases))
    estimate = sum(job.seconds(each) for job in jobs) + CEILING_SECONDS
    print(f"{len(rivals)} servers, {len(cases)} cases, about {estimate / 60:.0f} minutes once everything is installed"
          + (f"; limited to {budget_minutes:g}" if budget_minutes else ""), file=sys.stderr, flush=True)  # fmt: skip
    if arguments.plan:
        for job in jobs:
            levels = "; ".join(
                f"{part.case.name} {part.protocol}: {', '.join(map(str, part.levels))}" for part in job.parts
            )
            print(f"{job.rival.name:16} {job.seconds(each):5.0f} s  {levels}")
        return 0
    if not arguments.no_install:
        install.install_missing(rivals)
    need_models(WORK / "models", works)
    began = time.monotonic()
    say("ceilings: bare sessions, bare functions, memcpy")
    beside = next(rival for rival in all_rivals() if rival.packages_beside)
    python = None if install.install_error(beside) else install.interpreter(beside)
    bare = ceilings.measure(works, WORK / "models", python, packages_of(beside))
    budget = None if budget_minutes is None else budget_minutes * 60 - (time.monotonic() - began)
    rows = measure(jobs, arguments, seconds, budget)
    results = {
        "date": date.today().isoformat(),
        "machine": environment.machine(),
        "settings": {"seconds": seconds, "quick": arguments.quick, "minutes": (time.monotonic() - began) / 60},
        "versions": {rival.name: environment.versions(rival) for rival in rivals},
        "ceilings": bare.as_json(),
        "rows": [row.as_json() for row in rows],
    }
    written = report.write(results, arguments.output)
    print(f"wrote {written}", file=sys.stderr)
    failed = [row for row in rows if row.error and row.rival == "ours"]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
