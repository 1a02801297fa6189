"""What the raw results say: shares of ceilings, the best of each, where a rival leads. Pure functions."""

from collections.abc import Iterable
from dataclasses import dataclass

from rivals.results import Results, Row

OURS = ("ours", "ours-functions")
CEILINGS = ("echo-grpc", "echo-rest")
# A rival is ahead if it is so by more than what two runs of the same server differ by.
MARGIN = {"requests_s": 0.03, "cpu_us": 0.03, "p50_us": 0.03, "p99_us": 0.25}


def good(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row["measured"] and not row["error"]]


def figure(row: Row, name: str) -> float:
    return float(row["measured"][name])


def holds_rate(row: Row) -> bool:
    """Of an open loop: whether the server kept up with what was sent."""
    return not row["rate"] or (figure(row, "requests_s") >= 0.98 * row["rate"] and not row["measured"]["unanswered"])


def has_times(row: Row) -> bool:
    """Whether any of the requests that were due in the measured time was answered: a server far behind its load answers
    those of the warm-up alone, and what it took for them is not in the figures."""
    return figure(row, "max_us") > 0


def is_grpc(row: Row) -> bool:
    return "grpc" in row["protocol"]


def echo_rate(results: Results, row: Row) -> float | None:
    wanted = "echo-grpc" if is_grpc(row) else "echo-rest"
    for other in good(results.rows):
        if other["rival"] == wanted and other["case"] == row["case"] and other["level"] == row["level"]:
            return figure(other, "requests_s")
    return None


def bare_rate(results: Results, row: Row, work: str, instances: int) -> float | None:
    """Requests a second of the computation alone: MindSpore's for ours, the functions for all that run them. The old
    package runs kernels of its own, which are not measured alone."""
    if row["rival"] == "old":
        return None
    ceilings = results.run_of(row["case"])["ceilings"]
    found = ceilings["sessions" if row["rival"] == "ours" else "functions"].get(work)
    return found / instances if found else None


def ceiling(results: Results, row: Row, work: str, instances: int) -> tuple[float, str] | None:
    """The lower of what the network and what the computation allow, and which of the two it is."""
    if row["rate"] or row["rival"] in CEILINGS:
        return None
    limits = [(echo_rate(results, row), "echo"), (bare_rate(results, row, work, instances), "model")]
    known = [(rate, kind) for rate, kind in limits if rate]
    return min(known) if known else None


def best(
    rows: Iterable[Row], rivals: Iterable[str] | None, case: str, level: str, name: str = "requests_s"
) -> Row | None:
    """The row with the most requests a second, or the least of anything else; rivals None: all but ours and echoes."""
    found = [
        row for row in good(rows)
        if row["case"] == case and row["level"] == level and row["rival"] not in CEILINGS
        and (row["rival"] in rivals if rivals is not None else row["rival"] not in OURS)
        and (has_times(row) or name in ("requests_s", "cpu_us"))
    ]  # fmt: skip
    if name == "requests_s":
        return max(found, key=lambda row: figure(row, name), default=None)
    return min(found, key=lambda row: figure(row, name), default=None)


@dataclass(frozen=True)
class Loss:
    case: str
    level: str
    what: str
    rival: str
    protocol: str
    theirs: float
    ours: float


def losses(results: Results) -> list[Loss]:
    """Each case and level in which the best rival is ahead of the best of ours: in requests a second, in CPU a request,
    and, where the load is the same for both (one in flight, or an open loop), in p50 and p99."""
    found = []
    rows = results.rows
    for case, level in dict.fromkeys((row["case"], row["level"]) for row in good(rows)):
        sample = next(row for row in good(rows) if (row["case"], row["level"]) == (case, level))
        same_load = bool(sample["rate"]) or sample["connections"] * sample["streams"] == 1
        names = ["cpu_us", *(["p50_us", "p99_us"] if same_load else [])] + ([] if sample["rate"] else ["requests_s"])
        for name in names:
            ours, theirs = best(rows, OURS, case, level, name), best(rows, None, case, level, name)
            if ours is None or theirs is None:
                continue
            mine, their = figure(ours, name), figure(theirs, name)
            ahead = their > mine * (1 + MARGIN[name]) if name == "requests_s" else their < mine * (1 - MARGIN[name])
            if ahead:
                found.append(Loss(case, level, name, theirs["rival"], theirs["protocol"], their, mine))
    return found
