"""The folders of csrc/ depend on each other in one direction only."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"

# folder -> folders whose headers it may include, besides its own
ALLOWED: dict[str, set[str]] = {
    "base": set(),
    "tensor": {"base"},
    "net": {"base", "tensor"},
    "batching": {"base", "tensor"},
    "session": {"base", "tensor"},
    "distributed": {"base", "tensor", "net", "session"},
    "servable": {"base", "tensor"},
    "worker": {"base", "tensor", "batching", "session", "servable"},
    "protocol": {"base", "tensor", "net", "servable"},
    "server": {"base", "tensor", "net", "servable", "protocol"},
    "embed": {"base", "tensor", "net", "servable", "protocol", "server"},
    "python": {
        "base",
        "tensor",
        "net",
        "batching",
        "session",
        "distributed",
        "servable",
        "worker",
        "protocol",
        "server",
    },
}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([a-z_]+)/', re.MULTILINE)


def sources(folder: str) -> list[Path]:
    return sorted(path for path in (CSRC / folder).glob("*.*") if path.suffix in {".h", ".cc"})


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_includes_point_the_right_way(folder: str) -> None:
    files = sources(folder)
    assert files, f"csrc/{folder} has no sources"
    wrong = [
        f"{path.relative_to(CSRC)} includes {target}/"
        for path in files
        for target in INCLUDE.findall(path.read_text(encoding="utf-8"))
        if target != folder and target in ALLOWED and target not in ALLOWED[folder]
    ]
    assert not wrong


def test_only_base_reads_the_clock() -> None:
    pattern = re.compile(r"steady_clock::now|system_clock::now|clock_gettime\(")
    wrong = [
        str(path.relative_to(CSRC))
        for folder in ALLOWED
        if folder != "base"
        for path in sources(folder)
        if pattern.search(path.read_text(encoding="utf-8"))
    ]
    assert not wrong


def test_no_folder_is_forgotten() -> None:
    folders = {path.name for path in CSRC.iterdir() if path.is_dir() and any(path.glob("*.cc"))}
    assert folders <= set(ALLOWED)
