"""What a case is, and what came out of it."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from harness.load import Load


class Target(Protocol):
    grpc_address: str
    rest_address: str

    def cpu_seconds(self) -> float: ...


@dataclass(frozen=True)
class Sample:
    """One run of one case."""

    rate: float  # requests a second
    p50_us: float
    p99_us: float
    cpu_us: float  # of the server and its workers, a request


@dataclass(frozen=True)
class LoadCase:
    """A case under load. `prepare` calls the target once, checks the answer and returns what to send."""

    name: str
    title: str
    target: str
    prepare: Callable[[Target], Load]
    units: float = 1  # what one request carries, in `unit`
    unit: str = ""
    against: str = ""  # the case of the same run that this one is compared with
    goal: str = ""


@dataclass(frozen=True)
class FigureCase:
    """A case that measures itself and gives one figure a repetition, such as a start-up time."""

    name: str
    title: str
    unit: str
    measure: Callable[[], float]
    against: str = ""
    goal: str = ""


@dataclass
class Outcome:
    samples: list[Sample] = field(default_factory=list)
    figures: list[float] = field(default_factory=list)
    error: str = ""
    known_spread: float | None = None  # of an outcome that was kept as medians
    run: str = ""  # that it is of, where several are shown together

    def median(self, name: str) -> float:
        return statistics.median(getattr(sample, name) for sample in self.samples)

    @property
    def figure(self) -> float:
        return statistics.median(self.figures)

    @property
    def spread(self) -> float:
        """Between the slowest and the fastest repetition, as a share of the median."""
        if self.known_spread is not None:
            return self.known_spread
        values = self.figures or [sample.rate for sample in self.samples]
        median = statistics.median(values)
        return (max(values) - min(values)) / median if median else 0.0
