"""What the README shows is what runs: its files, word for word but for the ports, and its curl line."""

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from servers import EXAMPLES, ServerProcess, run_script

ROOT = EXAMPLES.parent
PAGES = [
    str(page.relative_to(ROOT))
    for folder in (".", "docs", "examples", "benchmarks")
    for page in (ROOT / folder).glob("*.md")
]
README = EXAMPLES.parent / "README.md"
FENCE = re.compile(r"<!-- (file|run): (\S+) -->\n```\w*\n(.*?)```", re.DOTALL)


@pytest.fixture
def snippets() -> dict[str, str]:
    found = {name: text for _, name, text in FENCE.findall(README.read_text())}
    assert sorted(found) == ["add/servable_config.py", "client.py", "rest", "server.py"]
    return found


def with_ports(text: str, server: ServerProcess) -> str:
    assert "127.0.0.1:5500" in text or "127.0.0.1:1500" in text
    return text.replace("127.0.0.1:5500", server.grpc_address).replace("127.0.0.1:1500", server.rest_address)


def test_ReadmeServableServerClientAndCurlWork(snippets: dict[str, str], tmp_path: Path, tensor_add_folder: Path):
    (tmp_path / "add" / "1").mkdir(parents=True)
    model = tensor_add_folder / "add" / "1" / "tensor_add.mindir"
    (tmp_path / "add" / "1" / model.name).write_bytes(model.read_bytes())
    (tmp_path / "add" / "servable_config.py").write_text(snippets["add/servable_config.py"])

    server = ServerProcess(tmp_path / "server.py")
    server.script.write_text(with_ports(snippets["server.py"], server))
    (tmp_path / "client.py").write_text(with_ports(snippets["client.py"], server))
    with server:
        printed = run_script(tmp_path / "client.py")
        assert printed.strip() == str(np.array([[11, 22], [33, 44]], np.float32))
        curl = shlex.split(with_ports(snippets["rest"], server))
        done = subprocess.run([*curl, "-sS", "--max-time", "20"], capture_output=True, text=True, check=True)
        assert done.stdout == '{"instances":[{"y":[[11.0,22.0],[33.0,44.0]]}]}'


def test_TheClientPagesPythonWorks(tensor_add: ServerProcess, tmp_path: Path):
    (text,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "clients.md").read_text(), re.DOTALL)
    (tmp_path / "client.py").write_text(with_ports(text, tensor_add))
    assert run_script(tmp_path / "client.py").strip() == str(np.full((2, 2), 4, np.float32))


def test_ReadmeStartsWithTheTwoCommands():
    first_screen = README.read_text().splitlines()[:12]
    commands = [line.split("#")[0].strip() for line in first_screen if line.startswith("./dev ")]
    assert commands == ["./dev demo", "./dev test"]


def test_ReadmeServableAndClientAreShort(snippets: dict[str, str]):
    for name, most in (("add/servable_config.py", 12), ("client.py", 10)):
        lines = [line for line in snippets[name].splitlines() if line.strip()]
        assert len(lines) <= most, name


@pytest.mark.parametrize("page", PAGES)
def test_LinksLeadSomewhere(page: str):
    path = README.parent / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{page} links to {target}"
