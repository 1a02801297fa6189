"""What processes leave in the system: sockets that listen, files that they have open or mapped, descriptors, zombies.

A `Traces` is told now and then to look at living processes. Afterwards, when they are gone, it says what of all that is
still there. Sockets are known by their inodes, so that another process's use of the same port is not taken for theirs.
"""

import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_LISTENS = "0A"  # of the state column of /proc/net/tcp
_UNIX_LISTENS = 0x10000  # a flag: SO_ACCEPTCON
_SOCKET = re.compile(r"socket:\[(\d+)\]")


def listening_sockets() -> dict[int, str]:
    """Every listening TCP and unix socket of this network namespace: its inode and its address."""
    found: dict[int, str] = {}
    for name in ("tcp", "tcp6"):
        for line in _lines(Path("/proc/net") / name):
            fields = line.split()
            if fields[3] == _LISTENS:
                found[int(fields[9])] = f"{name} port {int(fields[1].rpartition(':')[2], 16)}"
    for line in _lines(Path("/proc/net/unix")):
        fields = line.split(maxsplit=7)
        if int(fields[3], 16) & _UNIX_LISTENS:
            found[int(fields[6])] = f"unix {fields[7] if len(fields) > 7 else '(no name)'}"
    return found


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def zombies_of(pid: int) -> list[int]:
    """Children of a process that it has not waited for."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                state, parent = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state == "Z" and int(parent) == pid:
                found.append(int(entry.name))
    return found


@dataclass
class Traces:
    """Args: own: folders whose files are the test's own affair, such as logs and models."""

    own: tuple[Path, ...] = ()
    sockets: dict[int, tuple[str, int]] = field(default_factory=dict)  # by inode: the address, whose it is
    files: dict[str, set[int]] = field(default_factory=dict)  # who has them open
    _before: set[str] = field(default_factory=lambda: {str(path) for path in Path("/dev/shm").iterdir()})

    def look_at(self, pids: Iterable[int]) -> None:
        """Remember what these processes hold now."""
        listening = listening_sockets()
        for pid in pids:
            for target in _links(Path(f"/proc/{pid}/fd")):
                if found := _SOCKET.fullmatch(target):
                    if int(found[1]) in listening:
                        self.sockets[int(found[1])] = listening[int(found[1])], pid
                else:
                    self._note(target, pid)
            for line in _lines(Path(f"/proc/{pid}/maps"), skip=0):
                self._note(line[line.find("/") :] if "/" in line else "", pid)

    def left(self, alive: Iterable[int] = ()) -> list[str]:
        """What is still there of processes that are gone; those of `alive` may keep theirs."""
        still, listening = set(alive), listening_sockets()
        found = [
            f"{address} of process {pid}"
            for inode, (address, pid) in self.sockets.items()
            if pid not in still and inode in listening
        ]
        found += [path for path, pids in self.files.items() if not pids & still and os.path.exists(path)]
        if not still:
            found += sorted({str(path) for path in Path("/dev/shm").iterdir()} - self._before - set(found))
        return found

    def _note(self, path: str, pid: int) -> None:
        path = path.removesuffix(" (deleted)")
        temporary = path.startswith(("/dev/shm/", "/tmp/", "/var/tmp/")) and path not in self._before
        if temporary and not any(Path(path).is_relative_to(folder) for folder in (*self.own, Path(sys.prefix))):
            self.files.setdefault(path, set()).add(pid)


def _lines(path: Path, skip: int = 1) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()[skip:]
    except OSError:
        return []  # the process has ended meanwhile


def _links(folder: Path) -> list[str]:
    found = []
    try:
        entries = os.listdir(folder)
    except OSError:
        return []
    for entry in entries:
        try:
            found.append(os.readlink(folder / entry))
        except OSError:
            continue
    return found
