"""What a rival is to the harness. Each folder here has an adapter.py with a `RIVALS` list of these."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rivals.protocols import ServingProtocol

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Start:
    """What one start of a server is about."""

    python: Path  # of the rival's environment
    work: str
    grpc_port: int
    http_port: int
    build: Path  # where the project's benchmark programs are
    scratch: Path  # an empty folder, the server's working directory


@dataclass(frozen=True)
class Rival:
    name: str  # in the results
    title: str
    folder: str  # beside this file, and the name of its environment
    package: str  # whose version is shown
    protocols: Mapping[str, ServingProtocol]  # the first one is its fastest
    settings: Sequence[str]  # what was set, and why: for the report
    command: Callable[[Start], list[str]]
    env: Callable[[Start], dict[str, str]] = lambda start: {}
    pythons: tuple[str, ...] = ("3.11", "3.12", "3.10")  # that its packages exist for, the best first
    skips: Mapping[str, str] = field(default_factory=dict)  # work -> why it is not run
    own_interpreter: bool = False  # the project's own environment instead of one from requirements.txt
    packages_beside: bool = False  # with own_interpreter: requirements.txt comes in a folder beside it
    start_each_protocol: bool = False  # its idle routes would cost processor time: RIVALS_PROTOCOL names the one
    ceiling: bool = False  # an echo
    warm_up_seconds: float = 0  # of load before the first level of a protocol: its code is compiled as it runs
    ends_slowly: bool = False  # then it is killed
    leaves: Callable[[Start], Sequence[Path]] = lambda start: ()  # folders outside of its own, removed after it
    start_seconds: float = 5  # what a start takes, for the estimate

    @property
    def home(self) -> Path:
        return FOLDER / self.folder


def run_script(start: Start, folder: str, *arguments: str) -> list[str]:
    """A rival's server.py, which reads RIVALS_WORK, RIVALS_GRPC_PORT and RIVALS_HTTP_PORT."""
    return [str(start.python), str(FOLDER / folder / "server.py"), *arguments]
