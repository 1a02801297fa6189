"""Half load for a long time: memory and descriptors of the server and its workers must stay where they are.

usage: soak.py FOLDER_WITH_MODELS [--seconds 1800] [--pause 0.02]     (models: see export_models.py)
"""

import argparse
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from chaos.clients import Traffic
from chaos.ledger import RIGHT, Ledger
from chaos.world import World, make_world
from servers import ServerProcess

CLIENTS = {"grpcio": 2, "window": 1, "rest": 2, "raw": 1}
PAUSE_SECONDS = 0.02  # between two requests of a client: about half of what they send without
SAMPLES = 60
# Of a run's first part nothing is said: pools and caches fill.
WARM_SHARE = 0.3
GROWTH_MB = 8.0  # of private memory, from the beginning of the second part to the end
# Pages of shared memory are counted once they are touched: rings go round, and slabs are used from their beginning, so
# this levels off where the load's worst moment was. It is given back when the server has been idle for ten seconds.
SHARED_MB = 256.0


def resident_mb(pid: int, kind: str) -> float:
    """Memory that a process holds, of one kind of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"no {kind} of {pid}")


@dataclass
class Process:
    name: str
    pid: int
    seconds: list[float] = field(default_factory=list)
    private_mb: list[float] = field(default_factory=list)
    shared_mb: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)

    def sample(self, at: float) -> None:
        self.seconds.append(at)
        self.private_mb.append(resident_mb(self.pid, "RssAnon"))
        self.shared_mb.append(resident_mb(self.pid, "RssShmem"))
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
            f"shared {self.shared_mb[0]:6.1f} -> {self.shared_mb[-1]:6.1f} MB, "
            f"{self.slope(self.shared_mb):+.3f} MB/min; descriptors {self.descriptors[0]:.0f} -> "
            f"{self.descriptors[-1]:.0f}, {self.slope(self.descriptors):+.3f}/min"
        )


def soak(world: World, seconds: float, pause: float = PAUSE_SECONDS) -> tuple[list[Process], Ledger]:
    """Runs the load; the processes with their samples, and the books."""
    ledger = Ledger()
    processes = [Process("server", world.server.pid)]
    for servable in ("plain", "batched", "python"):
        processes += [Process(servable, pid) for pid in world.workers(servable)]
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
        f"{process.name} ({process.pid}) holds {process.shared_mb[-1]:.1f} MB of shared memory"
        for process in processes
        if process.shared_mb[-1] > SHARED_MB
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
