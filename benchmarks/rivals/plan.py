"""What a run measures: the cases, how hard each is pressed, and how long that takes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.load import Shape
from rivals.loads import Level
from rivals.rival import Rival


@dataclass(frozen=True)
class Case:
    """A work, and how many instances of it a request has."""

    name: str
    title: str
    work: str
    instances: int
    main: Level  # the level that summaries and plots show
    full: tuple[Level, ...]
    quick: tuple[Level, ...]  # of the fastest protocol
    quick_others: tuple[Level, ...]  # of the others


@dataclass(frozen=True)
class Part:
    case: Case
    protocol: str
    levels: tuple[Level, ...]


@dataclass
class Job:
    """What is measured with one start of a server."""

    rival: Rival
    work: str
    parts: list[Part] = field(default_factory=list)

    def seconds(self, each: float) -> float:
        """An estimate; a run takes its time and some tenths of a second more."""
        runs = sum(len(part.levels) for part in self.parts)
        warm_up = len(self.parts) * self.rival.warm_up_seconds
        return self.rival.start_seconds + 1 + warm_up + runs * (each + 0.3)


def _closed(connections: int, streams: int = 1) -> Level:
    return Level(Shape(connections, streams))


def _open(rate: float) -> Level:
    return Level(Shape(64), rate)


C1, C4, C16, C64, C256, STREAMS = _closed(1), _closed(4), _closed(16), _closed(64), _closed(256), _closed(8, 16)
_CLOSED = (C1, C16, C64, C256, STREAMS)
_SMALL = (*_CLOSED, _open(500), _open(2000), _open(8000))

_O500, _O2000 = _open(500), _open(2000)

# `quick` is cut so that all servers together take some 17 minutes.
CASES = [
    Case("addb", "the sum of two 2x2 matrices, a model for batches of 32", "addb", 1, C64, _SMALL,
         (C1, C16, C64, C256, STREAMS, _O2000), (C64,)),
    Case("addb-16i", "that with 16 instances a request", "addb", 16, C16, (C1, C16, C64, _O500), (C16,), ()),
    Case("add", "the same sum without a batch dimension: one run an instance", "add", 1, C64, _SMALL,
         (C1, C64), ()),
    Case("mlp", "MLP 784-512-10, batches of 32", "mlp", 1, C64, (*_CLOSED, _O500, _O2000), (C1, C64, C256, _O500), ()),
    Case("big", "4 MiB in, 4 MiB out", "big", 1, C4, (C1, C4, _open(20)), (C4,), ()),
    Case("prepost", "bytes to floats in Python, the MLP, the best class in Python", "prepost", 1, C64,
         (*_CLOSED, _O500, _O2000), (C64,), ()),
    Case("pipeline", "three models of 128 units after each other", "pipeline", 1, C64,
         (*_CLOSED, _O500, _O2000), (C64,), ()),
    Case("lenet", "LeNet on 8x8 digits, batches of 32", "lenet", 1, C64, (*_CLOSED, _O500, _O2000), (C64,), ()),
    Case("resnet50", "ResNet-50, one image at a time", "resnet50", 1, C4, (C1, C4), (C1, C4), ()),
]  # fmt: skip


def _levels(case: Case, quick: bool, fastest: bool, first_grpc: bool, own: bool) -> list[Level]:
    """Many streams on a connection are for gRPC: the first such protocol has them, even where another is faster. Our
    REST is set beside our gRPC wherever requests are small."""
    others = (C64,) if own and case.work in ("add", "lenet") else case.quick_others
    wanted = case.full if not quick else case.quick if fastest else others
    plain = [level for level in wanted if level.shape.streams == 1]
    streams = [level for level in (case.quick if quick else case.full) if level.shape.streams > 1]
    return plain + (streams if first_grpc else [])


def _parts(rival: Rival, case: Case, quick: bool) -> list[Part]:
    parts = []
    first_grpc = next((name for name, protocol in rival.protocols.items() if protocol.grpc), "")
    for position, name in enumerate(rival.protocols):
        if levels := _levels(case, quick, not position, name == first_grpc, rival.folder == "ours"):
            parts.append(Part(case, name, tuple(levels)))
    return parts


def jobs(rivals: Sequence[Rival], cases: Sequence[Case], *, quick: bool) -> list[Job]:
    """A start of each server for each work, in the order of the cases: a time limit cuts off what comes last."""
    planned: list[Job] = []
    for work in dict.fromkeys(case.work for case in cases):
        of_work = [case for case in cases if case.work == work]
        for rival in rivals:
            parts = [part for case in of_work for part in _parts(rival, case, quick)]
            names = dict.fromkeys(part.protocol for part in parts)
            groups = [{name} for name in names] if rival.start_each_protocol else [set(names)]
            for group in groups:
                planned.append(Job(rival, work, [part for part in parts if part.protocol in group]))
    return planned
