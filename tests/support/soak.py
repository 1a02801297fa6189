"""Half load for a long time: memory and descriptors of the server and its workers must stay where they are.

usage: soak.py FOLDER_WITH_MODELS [--seconds 1800] [--pause 0.02]     (models: see export_models.py)
"""

import argparse
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from chaos.clients import Traffic
from chaos.ledger import RIGHT, Ledger
from chaos.world import SERVABLES, World, make_world
from servers import ServerProcess

CLIENTS = {"grpcio": 2, "window": 1, "rest": 2, "raw": 1}
PAUSE_SECONDS = 0.02  # between two requests of a client: about half of what they send without
SAMPLES = 60
# Of a run's first part nothing is said: pools and caches fill.
WARM_SHARE = 0.3
GROWTH_MB = 8.0  # of private memory, from the beginning of the second part to the end
# Pages of shared memory are counted once they are touched. Blocks are reused, the one freed last first, so that slabs
# level off near the load's worst moment of each size, and are given back when the server has been idle for ten seconds.
SLAB_GROWTH_MB = 16.0
SLABS_MB = 256.0
# Rings are walked from end to end: each is there in full after one round, and that is all. For each pair of a loop and
# a worker: ChannelLayout::kBytes, and the worker's second view of its board.
RINGS_MB = (2064 + 4) * 1024 / 1e6


def shared_mb(pid: int) -> tuple[float, float]:
    """The pages of shared memory that a process has touched: of its rings, and of its slabs."""
    found: Counter[str] = Counter()  # by the name that the memory was given
    mapped = None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if header := re.match(r"[0-9a-f]+-[0-9a-f]+ .*?(?:memfd:serving (\w+) .*)?$", line):
            mapped = header[1]
        elif mapped and line.startswith("Rss:"):
            found[mapped] += int(line.split()[1])
    rings = found.pop("rings", 0)
    return rings * 1024 / 1e6, found.total() * 1024 / 1e6


def private_mb(pid: int) -> float:
    (kilobytes,) = re.findall(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.M)
    return int(kilobytes) * 1024 / 1e6


def thread_names(pid: int) -> str:
    return "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/comm"))


@dataclass
class Process:
    name: str
    pid: int
    channels: int  # pairs of a loop and a worker that it is part of
    seconds: list[float] = field(default_factory=list)
    private_mb: list[float] = field(default_factory=list)
    rings_mb: list[float] = field(default_factory=list)
    slabs_mb: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)

    def sample(self, at: float) -> None:
        self.seconds.append(at)
        rings, slabs = shared_mb(self.pid)
        self.private_mb.append(private_mb(self.pid))
        self.rings_mb.append(rings)
        self.slabs_mb.append(slabs)
        self.descriptors.append(float(psutil.Process(self.pid).num_fds()))

    def warm(self, values: list[float]) -> tuple[list[float], list[float]]:
        first = int(len(values) * WARM_SHARE)
        return self.seconds[first:], values[first:]

    def slope(self, values: list[float]) -> float:
        """A minute, by least squares over what came after the warm-up."""
        return statistics.linear_regression(*self.warm(values)).slope * 60

    def grown(self, values: list[float]) -> float:
        """What the slope means over the measured time."""
        seconds, _ = self.warm(values)
        return self.slope(values) * (seconds[-1] - seconds[0]) / 60

    def line(self) -> str:
        return (
            f"{self.name:10} private {self.private_mb[0]:7.1f} -> {self.private_mb[-1]:7.1f} MB, "
            f"{self.slope(self.private_mb):+.3f} MB/min; "
            f"slabs {self.slabs_mb[0]:6.1f} -> {self.slabs_mb[-1]:6.1f} MB, {self.slope(self.slabs_mb):+.3f} MB/min; "
            f"rings {self.rings_mb[0]:5.2f} -> {self.rings_mb[-1]:5.2f} MB, {self.slope(self.rings_mb):+.3f} MB/min; "
            f"descriptors {self.descriptors[0]:.0f} -> "
            f"{self.descriptors[-1]:.0f}, {self.slope(self.descriptors):+.3f}/min"
        )


def soak(world: World, seconds: float, pause: float = PAUSE_SECONDS) -> tuple[list[Process], Ledger]:
    """Runs the load; the processes with their samples, and the books."""
    ledger = Ledger()
    workers = [(servable, pid) for servable in SERVABLES for pid in world.workers(servable)]
    loops = len(re.findall(r"^serving-io", thread_names(world.server.pid), re.M))
    processes = [Process("server", world.server.pid, loops * len(workers))]
    processes += [Process(servable, pid, loops) for servable, pid in workers]
    traffic = Traffic(world.server.grpc_address, world.server.rest_address, ledger, seed=1, pause=pause)
    traffic.start(CLIENTS)
    try:
        started = time.monotonic()
        for number in range(SAMPLES):
            time.sleep(max(0.0, started + (number + 1) * seconds / SAMPLES - time.monotonic()))
            for process in processes:
                process.sample(time.monotonic() - started)
    finally:
        traffic.join()
    return processes, ledger


def problems(processes: list[Process], ledger: Ledger) -> list[str]:
    """What is wrong with a soak; nothing if all is well."""
    found = [
        f"{process.name} ({process.pid}) grows by {process.grown(process.private_mb):.1f} MB"
        for process in processes
        if process.grown(process.private_mb) > GROWTH_MB
    ]
    found += [
        f"{process.name} ({process.pid}) holds {process.slabs_mb[-1]:.1f} MB of slabs, grown by "
        f"{process.grown(process.slabs_mb):.1f}"
        for process in processes
        if process.slabs_mb[-1] > SLABS_MB or process.grown(process.slabs_mb) > SLAB_GROWTH_MB
    ]
    found += [
        f"{process.name} ({process.pid}) holds {process.rings_mb[-1]:.2f} MB of rings"
        for process in processes
        if process.rings_mb[-1] > RINGS_MB * process.channels
    ]
    found += [
        f"{process.name} ({process.pid}) opens {process.grown(process.descriptors):.1f} descriptors"
        for process in processes
        if process.grown(process.descriptors) > 3
    ]
    if ledger.counts[RIGHT] != ledger.sent:
        found.append(ledger.report())
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--pause", type=float, default=PAUSE_SECONDS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        script = make_world(Path(folder), arguments.models)
        with ServerProcess(script, env={"GLOG_v": "1"}) as server:
            processes, ledger = soak(World(server), arguments.seconds, arguments.pause)
    print(
        f"{arguments.seconds:.0f} s, {ledger.sent / arguments.seconds:.0f} requests a second",
        ledger.summary(),
        sep="\n",
    )
    print(*(process.line() for process in processes), sep="\n")
    found = problems(processes, ledger)
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
