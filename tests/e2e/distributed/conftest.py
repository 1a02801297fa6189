"""The parts of the distributed models are exported once a session; servables end with their test, however it ends."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rank_servable import RankServable
from servers import run_script

SUPPORT = Path(__file__).resolve().parents[2] / "support"


@pytest.fixture(scope="session")
def rank_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that export_rank_models.py fills."""
    folder = tmp_path_factory.mktemp("rank_models")
    run_script(SUPPORT / "export_rank_models.py", str(folder))
    return folder


@pytest.fixture
def parts(rank_models: Path) -> Callable[..., list[Path]]:
    """The model files of a model's ranks."""
    return lambda name, ranks=(0, 1): [rank_models / f"{name}_{rank}.mindir" for rank in ranks]


@pytest.fixture
def make_servable(tmp_path: Path) -> Iterator[Callable[..., RankServable]]:
    """Makes a RankServable in a folder of its own; nothing is started yet."""
    made: list[RankServable] = []

    def make(name: str = "servable", **arguments: Any) -> RankServable:
        made.append(RankServable(tmp_path / name, **arguments))
        return made[-1]

    yield make
    for servable in made:
        servable.kill()
