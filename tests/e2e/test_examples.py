"""Every example is exported or trained, served, called and stopped, as its README says."""

import re
from pathlib import Path

import pytest

from servers import EXAMPLES, ServerProcess, copy_example, run_script

# The arguments of a client that a test need not wait minutes for.
CLIENT_ARGUMENTS = {"resnet50": ["8", "4"]}
EXPECTED = {
    "tensor_add": ["gRPC add_common, float32", "gRPC add_cast, int32", "REST add_common"],
    "add_sub": ["gRPC add_clip_sub: 10 instances", "gRPC add_often", "REST add_clip_sub"],
    "digits": [
        "gRPC and REST agree on 360 held-out images",
        "gRPC top5, an image that is none: Preprocess Failed",
        "359 of 360 images ranked",
    ],
    "resnet50": ["8 images, 4 in flight"],
    "pipeline_worker": ["gRPC predict: rounds", "only positive numbers", "gRPC predict_test: 20 rows", "REST predict"],
}


def example_names() -> list[str]:
    """Without those of several ranks, which tests/e2e/distributed runs: they have a script more."""
    names = {path.parent.name for path in EXAMPLES.glob("*/serving_client.py")}
    return sorted(names - {path.parent.name for path in EXAMPLES.glob("*/serving_agents.py")})


def test_EveryExampleIsListedHere():
    assert example_names() == sorted(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_ExampleRuns(name: str, tmp_path: Path):
    folder = copy_example(name, tmp_path)
    maker = next(folder / script for script in ("export_model.py", "train.py") if (folder / script).exists())
    made = run_script(maker)
    assert list(folder.glob("*/1/*.mindir")), made
    if name == "digits":
        reached = float(re.search(r"held-out accuracy: ([0-9.]+)", made).group(1))
        assert reached > 0.95, made

    with ServerProcess(folder / "serving_server.py") as server:
        printed = run_script(folder / "serving_client.py", *CLIENT_ARGUMENTS.get(name, []), env=server.client_env)
        for text in EXPECTED[name]:
            assert text in printed
        assert server.stop() == 0, server.log
        assert server.pids() == []


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_ExampleUsesTheDocumentedPorts(name: str):
    assert '"127.0.0.1:5500"' in (EXAMPLES / name / "serving_server.py").read_text()
    assert '"127.0.0.1:1500"' in (EXAMPLES / name / "serving_server.py").read_text()
    assert '"127.0.0.1:5500"' in (EXAMPLES / name / "serving_client.py").read_text()
