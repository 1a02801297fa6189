"""Measures the cases and prints one table. `./dev bench` builds what this needs and calls it.

Every repetition runs all cases once, so that a slow minute of the machine hits all of them; the table has medians.
"""

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))  # servers.py, which starts and ends servers

from cases import (  # noqa: E402
    ceilings,
    codec,
    distributed,
    extra_workers,
    lifecycle,
    models,
    open_loop,
    overload,
    python_stage,
    serving,
)
from harness import budget, load, record  # noqa: E402
from harness.case import FigureCase, LoadCase, Outcome, Sample, Target  # noqa: E402
from harness.table import render, render_budget, render_rates  # noqa: E402
from harness.targets import ServingTarget  # noqa: E402

WORK = ROOT / "build" / "bench"
Case = LoadCase | FigureCase


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--case", action="append", metavar="NAME", help="only cases with this in their name; repeatable"
    )
    parser.add_argument("--seconds", type=int, default=3, help="of load per case and repetition (default: 3)")
    parser.add_argument("--repetitions", type=int, default=3, help="(default: 3)")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "release", help="where the echo programs are")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there as Markdown, too")
    parser.add_argument(
        "--readme", action="store_true", help="keep the results for the README's table, and write that table again"
    )
    parser.add_argument(
        "--readme-only", action="store_true", help="write the README's table from what is kept, and stop"
    )
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    return parser.parse_args()


class Targets:
    """Started when a case first asks for one, ended together."""

    def __init__(self, makers: dict[str, Callable[[], contextlib.AbstractContextManager[Target]]]) -> None:
        self._makers = makers
        self._running: dict[str, Target] = {}
        self._stack = contextlib.ExitStack()

    def get(self, name: str) -> Target:
        if name not in self._running:
            self._running[name] = self._stack.enter_context(self._makers[name]())
        return self._running[name]

    def __enter__(self) -> "Targets":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)


def measure_load(case: LoadCase, target: Target, seconds: int, prepared: dict[str, load.Load]) -> Sample:
    if case.name not in prepared:
        prepared[case.name] = case.prepare(target)
        load.run(prepared[case.name], address_of(case, target, prepared), 1, WORK)  # warm-up, not counted
    before = target.cpu_seconds()
    measured = load.run(prepared[case.name], address_of(case, target, prepared), seconds, WORK)
    cpu_us = (target.cpu_seconds() - before) / measured.requests * 1e6
    return Sample(measured.rate, measured.p50_us, measured.p99_us, cpu_us)


def address_of(case: LoadCase, target: Target, prepared: dict[str, load.Load]) -> str:
    return target.rest_address if prepared[case.name].rest else target.grpc_address


def show_progress(text: str) -> None:
    """One line that the next one overwrites; on no terminal, plain lines."""
    if sys.stderr.isatty():
        print(f"\r  {text:76}", end="" if text else "\r", file=sys.stderr, flush=True)
    elif text:
        print(f"  {text}", file=sys.stderr, flush=True)


def run_cases(cases: Sequence[Case], targets: Targets, arguments: argparse.Namespace) -> dict[str, Outcome]:
    outcomes = {case.name: Outcome() for case in cases}
    prepared: dict[str, load.Load] = {}
    for repetition in range(arguments.repetitions):
        for case in cases:
            outcome = outcomes[case.name]
            if outcome.error:
                continue
            show_progress(f"{repetition + 1}/{arguments.repetitions}  {case.title}")
            try:
                if isinstance(case, FigureCase):
                    outcome.figures.append(case.measure())
                else:
                    sample = measure_load(case, targets.get(case.target), arguments.seconds, prepared)
                    outcome.samples.append(sample)
            except Exception as error:  # the other cases still count; the exit code tells
                outcome.error = str(error) or repr(error)
                print(f"\n{case.name} failed: {outcome.error}", file=sys.stderr)
    show_progress("")
    return outcomes


def describe_run(arguments: argparse.Namespace) -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in lines if "model name" in line]
    return (
        f"{models[0].strip() if models else platform.machine()}, {os.cpu_count()} cores; server and workers on core 0, "
        f"load on core 1; {arguments.repetitions} repetitions of {arguments.seconds} s, medians"
    )


def report(cases: Sequence[Case], outcomes: dict[str, Outcome], description: str, *, markdown: bool) -> str:
    parts = [render(cases, outcomes, markdown)]
    if judged := budget.judged(budget.rows(serving.BIG_MB), outcomes):
        parts.append(render_budget(judged, markdown))
    if rates := open_loop.table(outcomes):
        parts.append(render_rates(rates, markdown))
    return "\n\n".join([*parts, description])


def all_cases(build: Path, get_target: Callable[[str], Target], seconds: int) -> list[Case]:
    servables, env = WORK / "servables", environment()
    return [
        *lifecycle.cases(WORK, env),
        *ceilings.cases(servables, build),
        *serving.cases(build),
        *codec.cases(build),
        *models.cases(servables, build),
        *open_loop.cases(build, WORK, get_target, seconds),
        *overload.cases(build, WORK, env, seconds),
        *python_stage.cases(get_target, seconds, WORK),
        *extra_workers.cases(),
        *distributed.cases(WORK),
    ]


def environment() -> dict[str, str]:
    return {"BENCH_SERVABLE_DIRECTORY": str(WORK / "servables"), "BENCH_SERVABLES": "add,addb,big,total"}


def no_target(name: str) -> Target:
    raise RuntimeError(f"nothing is measured now, and {name} is not started")


def readme_table() -> str:
    return record.table(all_cases(WORK, no_target, 1), record.read(record.STORED))


def main() -> int:
    arguments = parse_arguments()
    if arguments.readme_only:
        record.write_readme(readme_table(), record.README)
        return 0
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # servers under test end with the run
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("two cores are needed: one for the server, one for the load")
    WORK.mkdir(parents=True, exist_ok=True)
    servables = WORK / "servables"
    env = environment()
    makers: dict[str, Callable[[], contextlib.AbstractContextManager[Target]]] = {
        "serving": lambda: ServingTarget(ROOT / "benchmarks" / "server.py", WORK, env),
        **distributed.targets(WORK),
        **models.targets(ROOT / "benchmarks" / "server.py", WORK, env),
        **extra_workers.targets(ROOT / "benchmarks" / "server.py", WORK, env),
        **ceilings.programs(arguments.build),
    }
    with Targets(makers) as targets:
        cases = all_cases(arguments.build, targets.get, arguments.seconds)
        if arguments.case:
            cases = [case for case in cases if any(name in case.name for name in arguments.case)]
        if arguments.list or not cases:
            print("\n".join(f"{case.name:18} {case.title}" for case in cases) or "no such case")
            return 0 if cases else 2
        of_real_models = {case.name for case in models.cases(servables, arguments.build)}
        real = ["--real"] if any(case.name in of_real_models for case in cases) else []
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / "models.py"), str(servables), *real], check=True)
        outcomes = run_cases(cases, targets, arguments)
    description = describe_run(arguments)
    print(report(cases, outcomes, description, markdown=False))
    if arguments.markdown:
        arguments.markdown.write_text(report(cases, outcomes, description, markdown=True) + "\n")
    if arguments.readme:
        record.store(outcomes, f"{date.today().isoformat()}, {description}", record.STORED)
        record.write_readme(readme_table(), record.README)
    return 1 if any(outcome.error for outcome in outcomes.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
