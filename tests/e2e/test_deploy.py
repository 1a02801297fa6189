"""What examples/deploy shows is true: the files are well-formed, and a server started so answers their probes."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import requests
import yaml

from servables import make_servable
from servers import EXAMPLES, ServerProcess
from units import unit_values

DEPLOY = EXAMPLES / "deploy"
UNIT = DEPLOY / "mindspore-serving.service"
CONFIG = """
from mindspore_serving.server import register


@register.register_method(output_names=["y"])
def same(x):
    return x
"""


def manifest() -> dict[str, dict]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    return {document["kind"]: document for document in documents}


def container() -> dict:
    (one,) = manifest()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return one


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory):
    """The script of the deployments, started with their environment but for paths and addresses."""
    folder = tmp_path_factory.mktemp("deployed")
    environment = {one["name"]: one["value"] for one in container()["env"]}
    make_servable(folder, environment["SERVING_SERVABLES"], CONFIG, {})
    environment["SERVING_DIRECTORY"] = str(folder)
    script = shutil.copy(DEPLOY / "serving_server.py", folder)
    work = folder / "work"
    work.mkdir()
    with ServerProcess(Path(script), cwd=work, env=environment) as server:
        yield server


def test_UnitIsWhatSystemdTakes(tmp_path):
    if shutil.which("systemd-analyze") is None:
        assert "[Service]" in UNIT.read_text()
        return
    python = str(Path(sys.executable).resolve())
    here = tmp_path / UNIT.name
    here.write_text(UNIT.read_text().replace("/opt/serving/venv/bin/python", python))
    done = subprocess.run(["systemd-analyze", "verify", str(here)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert UNIT.name not in done.stderr, done.stderr


def test_UnitAndManifestRunTheSameScriptWithTheSameEnvironment():
    unit = unit_values(UNIT)
    (command,) = unit["ExecStart"]
    assert Path(command.split()[-1]).name == Path(container()["command"][-1]).name == "serving_server.py"
    script = (DEPLOY / "serving_server.py").read_text()
    named = [one.split("=")[0] for one in unit["Environment"]] + [one["name"] for one in container()["env"]]
    assert all(name in script for name in named if name.startswith("SERVING_")), named


def test_TimesToStopLeaveRoomForTheDrain():
    unit, pod = unit_values(UNIT), manifest()["Deployment"]["spec"]["template"]["spec"]
    environment = {one["name"]: one["value"] for one in container()["env"]}
    drain, workers = float(environment["SERVING_STOP_SECONDS"]), 10
    assert f"SERVING_STOP_SECONDS={drain:g}" in unit["Environment"]
    assert float(unit["TimeoutStopSec"][0]) > drain + workers
    pause = float(container()["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pod["terminationGracePeriodSeconds"] > pause + drain + workers
    assert unit["KillMode"] == ["mixed"] and unit["OOMPolicy"] == ["continue"]


def test_PortsAreThoseOfTheScript():
    script = (DEPLOY / "serving_server.py").read_text()
    ports = {one["name"]: one["containerPort"] for one in container()["ports"]}
    for name, variable in (("grpc", "SERVING_GRPC_ADDRESS"), ("rest", "SERVING_REST_ADDRESS")):
        found = re.search(rf'"{variable}", "0\.0\.0\.0:(\d+)"', script)
        assert found and int(found.group(1)) == ports[name]
    served = {one["name"]: one["port"] for one in manifest()["Service"]["spec"]["ports"]}
    assert served == ports


def test_ProbesAreAnswered(deployed):
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container()[probe]["httpGet"]
        assert asked["port"] == "rest"
        assert requests.get(f"http://{deployed.rest_address}{asked['path']}", timeout=30).status_code == 200


def test_SignalOfBothEndsItWithStatus0(deployed):
    assert deployed.stop(15) == 0
