"""Models are exported once a session; servers are processes on free ports that end with their test, however it ends."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servables import add_config, make_script, make_servable
from servers import ServerProcess, copy_example, run_script

SUPPORT = Path(__file__).resolve().parents[1] / "support"


@pytest.fixture(scope="session")
def long_run() -> bool:
    """Whether `./dev test --long` was asked for."""
    return bool(os.environ.get("MSSERVING_TEST_LONG"))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with add.mindir, addb.mindir and wideb.mindir (batches of 4, small and large) and plus100.mindir."""
    folder = tmp_path_factory.mktemp("models")
    run_script(SUPPORT / "export_models.py", str(folder))
    return folder


@pytest.fixture(scope="session")
def ascend() -> dict[str, str]:
    """The environment in which the double is found as CANN is."""
    build = Path(os.environ.get("MSSERVING_BUILD_DIR", SUPPORT.parents[1] / "build" / "release"))
    home = build / "tests" / "support" / "fake_ascend"
    library = home / "lib64" / "libascendcl.so"
    assert library.exists(), f"{library} is missing: build target fake_ascendcl, or set MSSERVING_BUILD_DIR"
    return {"ASCEND_HOME_PATH": str(home)}


@pytest.fixture
def start_server() -> Iterator[Callable[..., ServerProcess]]:
    """Starts a script and waits until it listens; arguments are those of ServerProcess."""
    servers: list[ServerProcess] = []

    def start(script: Path, **arguments: Any) -> ServerProcess:
        server = ServerProcess(script, **arguments)
        servers.append(server)
        return server.start().wait_ready()

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def tensor_add_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of examples/tensor_add with its model exported."""
    folder = copy_example("tensor_add", tmp_path_factory.mktemp("examples"))
    run_script(folder / "export_model.py")
    return folder


@pytest.fixture(scope="session")
def tensor_add(tensor_add_folder: Path) -> Iterator[ServerProcess]:
    """A running examples/tensor_add, shared by the tests that leave it as they found it."""
    with ServerProcess(tensor_add_folder / "serving_server.py") as server:
        yield server


@pytest.fixture(scope="session")
def adders(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[ServerProcess]:
    """One server with two servables: `plain` (no batch dimension) and `batched` (batches of 4), both with
    the methods add and add_checked. Shared by the tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("adders")
    make_servable(folder, "plain", add_config("add", checked=True), {1: models / "add.mindir"})
    make_servable(folder, "batched", add_config("addb", with_batch_dim=True, checked=True), {1: models / "addb.mindir"})
    with ServerProcess(make_script(folder, ['"plain"', '"batched"'])) as server:
        yield server


@pytest.fixture
def make_instances() -> Callable[..., list[dict[str, np.ndarray]]]:
    def make(count: int, dtype: Any = np.float32, seed: int = 0) -> list[dict[str, np.ndarray]]:
        random = np.random.default_rng(seed)
        return [{name: random.integers(0, 1000, (2, 2)).astype(dtype) for name in ("x1", "x2")} for _ in range(count)]

    return make
