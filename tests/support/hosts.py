"""Hosts of a network of their own on one machine: network namespaces on one bridge, with addresses 10.99.0.1, .2, ...

Nothing of it is seen by the machine's own network.
"""

import ctypes
import itertools
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)


def why_not() -> str:
    """Why hosts cannot be made on this machine; "" if they can."""
    if shutil.which("ip") is None:
        return "the program ip (iproute2) is missing"
    try:
        with Hosts(1):
            return ""
    except (OSError, subprocess.SubprocessError) as error:
        return f"no network namespaces on this machine: {getattr(error, 'stderr', None) or error}"


class Hosts:
    """As a context manager. Hosts are numbered from 1."""

    def __init__(self, count: int) -> None:
        self._prefix = f"mss{os.getpid() % 100000}x{next(_numbers)}"
        self.count = count

    def __enter__(self) -> "Hosts":
        try:
            _ip("netns", "add", self._switch)
            _ip("-n", self._switch, "link", "add", "bridge0", "type", "bridge")
            _ip("-n", self._switch, "link", "set", "bridge0", "up")
            for host in range(1, self.count + 1):
                name = self.name(host)
                _ip("netns", "add", name)
                ends = ["eth0", "netns", name, "type", "veth", "peer", "name", f"p{host}", "netns", self._switch]
                _ip("link", "add", *ends)
                _ip("-n", self._switch, "link", "set", f"p{host}", "master", "bridge0", "up")
                _ip("-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
                _ip("-n", name, "link", "set", "lo", "up")
                _ip("-n", name, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in [self._switch, *(self.name(host) for host in range(1, self.count + 1))]:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=30)

    @property
    def _switch(self) -> str:
        return f"{self._prefix}s"

    def name(self, host: int) -> str:
        return f"{self._prefix}h{host}"

    def address(self, host: int) -> str:
        return f"10.99.0.{host}"

    def prefix(self, host: int) -> list[str]:
        """What a command is preceded by to run on a host."""
        return ["ip", "netns", "exec", self.name(host)]

    def cut(self, host: int) -> None:
        """Nothing reaches the host any more, and nobody is told so."""
        _ip("-n", self._switch, "link", "set", f"p{host}", "nomaster")

    def heal(self, host: int) -> None:
        _ip("-n", self._switch, "link", "set", f"p{host}", "master", "bridge0")

    def run(self, host: int, function: Callable[[], Value]) -> Value:
        """Calls a function in a thread that is on a host; sockets that it makes are the host's."""
        results: list[Value] = []
        errors: list[BaseException] = []

        def call() -> None:
            try:
                with open(f"/run/netns/{self.name(host)}") as namespace:
                    libc = ctypes.CDLL(None, use_errno=True)
                    if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                results.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]
