"""Makes the rivals' environments, each from its requirements.txt by pip.

usage: python -m rivals.install [--only NAME,NAME]

One folder each under build/rivals/envs, one package index, one at a time. What cannot be installed is written down with
pip's own words and reported by the run; it is tried again when its requirements change, or by this command.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rivals.registry import WORK, all_rivals
from rivals.rival import Rival

ENVIRONMENTS = WORK / "envs"
LOGS = WORK / "logs"
_LIMIT_SECONDS = 1200
_BEFORE_METADATA = ("3.6", "3.7")  # Pythons without importlib.metadata
_WORST_SIGNS = ("ERROR:", "error:", "Error:")


@dataclass
class State:
    """How the last installation ended. Kept as JSON beside the environment."""

    wanted: str  # fingerprint of what was asked for
    python: str = ""
    error: str = ""


class InstallError(RuntimeError):
    pass


def interpreter(rival: Rival) -> Path:
    return Path(sys.executable) if rival.own_interpreter else ENVIRONMENTS / rival.folder / "bin" / "python"


def fingerprint(rival: Rival) -> str:
    requirements = rival.home / "requirements.txt"
    text = requirements.read_text() if requirements.exists() else ""
    return hashlib.sha256(f"{rival.pythons}\n{text}".encode()).hexdigest()


def read_state(rival: Rival) -> State | None:
    path = ENVIRONMENTS / f"{rival.folder}.json"
    return State(**json.loads(path.read_text())) if path.exists() else None


def is_current(rival: Rival) -> bool:
    state = read_state(rival)
    return state is not None and state.wanted == fingerprint(rival)


def install_error(rival: Rival) -> str:
    """Why the rival cannot run; empty if it can."""
    if rival.own_interpreter and not rival.packages_beside:
        return ""
    state = read_state(rival)
    if state is None:
        return "not installed: python -m rivals.install"
    return state.error


def _version_of(python: str) -> str:
    try:
        done = subprocess.run(
            [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def find_python(versions: Sequence[str]) -> str:
    """The first of these versions that the machine has: on the PATH, or where pyenv keeps its own."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in versions:
        for candidate in (sys.executable, shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")):
            if candidate and _version_of(str(candidate)) == version:
                return str(candidate)
    raise InstallError(f"no Python {' or '.join(versions)} on this machine")


def _logged(command: list[str], log: Path) -> None:
    with log.open("ab") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        try:
            code = subprocess.run(
                ["nice", "-n", "15", *command], stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                timeout=_LIMIT_SECONDS,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            raise InstallError(f"not installed within {_LIMIT_SECONDS} s") from None
    if code:
        lines = log.read_text(errors="replace").splitlines()
        said = [line for line in lines if any(sign in line for sign in _WORST_SIGNS)]
        raise InstallError("pip: " + (said or lines)[-1].strip()[:300])


def install(rival: Rival) -> State:
    state = State(fingerprint(rival))
    requirements = rival.home / "requirements.txt"
    log = LOGS / f"install-{rival.folder}.log"
    for folder in (ENVIRONMENTS, LOGS):
        folder.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    target = ENVIRONMENTS / rival.folder
    pip = ["-m", "pip", "install", "--no-compile", "--disable-pip-version-check", "-r", str(requirements)]
    try:
        if rival.own_interpreter:
            state.python = _version_of(sys.executable)
            _logged([sys.executable, *pip, "--no-deps", "--upgrade", "--target", str(target)], log)
        else:
            python = find_python(rival.pythons)
            state.python = _version_of(python)
            if _version_of(str(target / "bin" / "python")) != state.python:
                shutil.rmtree(target, ignore_errors=True)
                _logged([python, "-m", "venv", str(target)], log)
            _logged([str(target / "bin" / "python"), *pip], log)
    except InstallError as error:
        state.error = str(error)
    (ENVIRONMENTS / f"{rival.folder}.json").write_text(json.dumps(asdict(state), indent=1))
    return state


def install_missing(rivals: Iterable[Rival], *, again: bool = False) -> None:
    done = set()
    for rival in rivals:
        if rival.folder in done or (rival.own_interpreter and not rival.packages_beside):
            continue
        done.add(rival.folder)
        if is_current(rival) and not again:
            continue
        print(f"installing {rival.folder} ...", file=sys.stderr, flush=True)
        state = install(rival)
        print(f"  {rival.folder}: {state.error or 'Python ' + state.python}", file=sys.stderr, flush=True)


def installed_version(rival: Rival) -> str:
    """Of the rival's package in its environment; empty if it is not there."""
    program = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
    state = read_state(rival)
    if not rival.own_interpreter and state and state.python in _BEFORE_METADATA:
        program = "import pkg_resources as p, sys; print(p.get_distribution(sys.argv[1]).version)"
    try:
        done = subprocess.run(
            [str(interpreter(rival)), "-c", program, rival.package], capture_output=True, text=True, timeout=60
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names, with commas between them")
    only = parser.parse_args().only
    rivals = [rival for rival in all_rivals() if not only or rival.folder in only.split(",")]
    install_missing(rivals, again=True)
    return 1 if any(install_error(rival) for rival in rivals) else 0


if __name__ == "__main__":
    sys.exit(main())
