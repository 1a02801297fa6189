"""All rivals: every folder here with an adapter.py."""

import importlib
import os
import sys
from pathlib import Path

from rivals.rival import FOLDER, Rival

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))  # servers.py, which adapters ask for free ports
# Environments, models and logs; one folder may serve several working copies.
WORK = Path(os.environ.get("RIVALS_FOLDER", ROOT / "build" / "rivals"))
# Ours and the ceilings come first: what is run last may fall to the time limit.
_FIRST = ("ceiling", "ours", "mosec")


def all_rivals() -> list[Rival]:
    folders = sorted(path.parent.name for path in FOLDER.glob("*/adapter.py"))
    folders.sort(key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    return [rival for name in folders for rival in importlib.import_module(f"rivals.{name}.adapter").RIVALS]
