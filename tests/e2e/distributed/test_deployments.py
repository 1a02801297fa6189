"""What examples/deploy/distributed shows is true: the manifests are what Kubernetes takes, and what they start, with
nothing but their environment and mounts, answers. There is no cluster here: pods are played in network namespaces."""

import http.client
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from certificates import Authority
from hosts import Hosts, why_not
from pods import Cluster, Pod, load_manifests, why_not_pods
from rank_servable import wait_until
from servers import EXAMPLES, copy_example, run_script
from units import unit_values

DEPLOY = EXAMPLES / "deploy" / "distributed"
MANIFESTS = DEPLOY / "kubernetes.yaml"
UNIT = DEPLOY / "mindspore-serving-ranks.service"
SERVER = ("Deployment", "mindspore-serving")
RANKS = ("StatefulSet", "mindspore-serving-ranks")
SECRET = "mindspore-serving-ranks-tls"
BACK_SECONDS = 240


def pod_spec(owner: tuple[str, str]) -> dict[str, Any]:
    return load_manifests(MANIFESTS)[owner]["spec"]["template"]["spec"]


def container(owner: tuple[str, str]) -> dict[str, Any]:
    (one,) = pod_spec(owner)["containers"]
    return one


def environment(owner: tuple[str, str]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container(owner)["env"]}


def documented(script: str) -> set[str]:
    """The variables that a script's docstring tells of."""
    return set(re.findall(r"^(SERVING_\w+)", (DEPLOY / script).read_text(), re.MULTILINE))


# ---- without starting anything


@pytest.mark.parametrize("path", [MANIFESTS, EXAMPLES / "deploy" / "kubernetes.yaml"], ids=["distributed", "single"])
@pytest.mark.parametrize("version", ["1.28", "1.34"])
def test_ManifestsAreWhatKubernetesTakes(path: Path, version: str):
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for one in load_manifests(path).values():
        assert kubernetes_validate.validate(one, version, strict=True) == version


def test_ScriptsReadWhatTheirDocstringsSay_AndManifestsAndUnitGiveNothingElse():
    for script in ("distributed_server.py", "distributed_agents.py"):
        code = (DEPLOY / script).read_text().split('"""')[2]
        assert set(re.findall(r'"(SERVING_\w+)"', code)) == documented(script)
    assert {n for n in environment(SERVER) if n.startswith("SERVING_")} <= documented("distributed_server.py")
    assert {n for n in environment(RANKS) if n.startswith("SERVING_")} <= documented("distributed_agents.py")
    written = set(re.findall(r'echo "(SERVING_\w+)=', (DEPLOY / "start_ranks.sh").read_text()))
    assert written <= documented("distributed_agents.py")


def test_PortsServicesAndPoliciesFitTogether():
    manifests = load_manifests(MANIFESTS)
    ports = {one["name"]: one["containerPort"] for one in container(SERVER)["ports"]}
    script = (DEPLOY / "distributed_server.py").read_text()
    for name, variable in (("grpc", "GRPC"), ("rest", "REST"), ("ranks", "RANKS")):
        assert f'"SERVING_{variable}_ADDRESS", "0.0.0.0:{ports[name]}"' in script
    labels = [manifests[owner]["spec"]["template"]["metadata"]["labels"] for owner in (SERVER, RANKS)]
    for owner in (SERVER, RANKS):
        spec = manifests[owner]["spec"]
        assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    served: dict[str, int] = {}
    for (kind, name), one in manifests.items():
        spec = one["spec"] if kind != "ConfigMap" else {}
        if kind == "Service":
            assert spec["selector"] in labels, name
            served |= {port["targetPort"]: port["port"] for port in spec.get("ports", [])}
        if kind == "NetworkPolicy":
            assert spec["podSelector"]["matchLabels"] in labels, name
            for rule in spec["ingress"]:
                assert all(port["port"] in ports for port in rule.get("ports", []))
                assert all(one["podSelector"]["matchLabels"] in labels for one in rule.get("from", []))
    assert served == ports
    host, _, port = environment(RANKS)["SERVING_RANKS_ADDRESS"].rpartition(":")
    assert ("Service", host) in manifests and int(port) == ports["ranks"]
    assert ("Service", manifests[RANKS]["spec"]["serviceName"]) in manifests


def test_TheRankTableHasTheRanksOfThePods():
    manifests = load_manifests(MANIFESTS)
    stateful = manifests[RANKS]
    table = json.loads(manifests["ConfigMap", "mindspore-serving-ranks"]["data"]["rank_table.json"])
    here = int(environment(RANKS)["SERVING_RANKS_HERE"])
    assert len(table["server_list"]) == stateful["spec"]["replicas"]
    assert all(len(one["device"]) == here for one in table["server_list"])
    names = [one["server_id"] for one in table["server_list"]]
    assert names == [f"{stateful['metadata']['name']}-{i}" for i in range(len(names))]


@pytest.mark.parametrize(
    ("given", "here", "first"),
    [
        ({"SERVING_POD_NAME": "mindspore-serving-ranks-0"}, 2, 0),
        ({"SERVING_POD_NAME": "mindspore-serving-ranks-3"}, 2, 6),
        ({"SERVING_POD_NAME": "ranks-12"}, 1, 12),
        ({"SERVING_POD_NAME": "ranks-3", "SERVING_RANK_START": "5"}, 2, 5),
    ],
)
def test_TheFirstRankOfAPod(given: Mapping[str, str], here: int, first: int):
    names: dict[str, Any] = {"__name__": "script"}
    exec((DEPLOY / "distributed_agents.py").read_text(), names)
    assert names["first_rank"](given, here) == first


def test_TimesToStopLeaveRoom():
    drain, worker = float(environment(SERVER)["SERVING_STOP_SECONDS"]), 10
    pause = float(container(SERVER)["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pod_spec(SERVER)["terminationGracePeriodSeconds"] > pause + drain + worker
    # The launcher gives its agents two seconds.
    assert pod_spec(RANKS)["terminationGracePeriodSeconds"] >= 10
    unit = unit_values(UNIT)
    assert float(unit["TimeoutStopSec"][0]) >= 10
    assert unit["KillMode"] == ["mixed"] and unit["Restart"] == ["always"] and unit["OOMPolicy"] == ["continue"]


def test_UnitIsWhatSystemdTakes(tmp_path: Path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs the program systemd-analyze")
    here = tmp_path / UNIT.name
    here.write_text(UNIT.read_text().replace("/opt/serving/venv/bin/python", str(Path(sys.executable).resolve())))
    done = subprocess.run(["systemd-analyze", "verify", str(here)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert UNIT.name not in done.stderr, done.stderr


# ---- by ssh


def run_start_ranks(folder: Path, arguments: list[str], code: int = 0, **variables: str) -> dict[str, str]:
    """start_ranks.sh with a ssh that keeps what it is given: for each machine its command and its input."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    ssh = programs / "ssh"
    ssh.write_text(
        f'#!/bin/sh\ncd {shlex.quote(str(folder))}\nif [ "$1" = -n ]; then shift; else cat >"$1.env"; fi\n'
        'printf %s "$2" >"$1.command"\n[ "$1" != broken ]\n'
    )
    ssh.chmod(0o755)
    env = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", **variables}
    done = subprocess.run(
        [str(DEPLOY / "start_ranks.sh"), *arguments], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()} | {"stderr": done.stderr}


def test_EveryMachineGetsItsRanksBySsh(tmp_path: Path):
    machines = tmp_path / "machines"
    machines.write_text("# two\nbroken 10.0.0.1 0 2\nb 10.0.0.2 2 3\n")
    found = run_start_ranks(tmp_path, ["start", str(machines), "worker:6200"], code=1, SERVING_RANKS_TLS="/tls")
    assert "broken: could not start" in found["stderr"] and "b: could" not in found["stderr"]
    assert found["b.env"].splitlines() == [
        "SERVING_RANKS_ADDRESS=worker:6200",
        "SERVING_MODEL_FILES=/opt/serving/models/rank_{rank}.mindir",
        "SERVING_AGENT_IP=10.0.0.2",
        "SERVING_RANK_START=2",
        "SERVING_RANKS_HERE=3",
        "SERVING_RANKS_TLS=/tls",
    ]
    (settings,) = unit_values(UNIT)["EnvironmentFile"]
    assert f"tee {settings} " in found["b.command"] and f"restart {UNIT.stem}" in found["b.command"]
    for action in ("stop", "status"):
        found = run_start_ranks(tmp_path, [action, str(machines)], code=1)
        assert UNIT.stem in found["b.command"] and action.replace("stop", "disable --now") in found["b.command"]


@pytest.mark.parametrize("arguments", [[], ["start"], ["start", "machines"], ["end", "machines"]])
def test_HowItIsUsedIsSaid(tmp_path: Path, arguments: list[str]):
    assert "start_ranks.sh start MACHINES WORKER" in run_start_ranks(tmp_path, arguments, code=2)["stderr"]


def test_AnIncompleteLineIsNamed(tmp_path: Path):
    machines = tmp_path / "machines"
    machines.write_text("a 10.0.0.1 0\n")
    found = run_start_ranks(tmp_path, ["start", str(machines), "worker:6200"], code=2)
    assert "'a' should be followed by an address, a rank and a number of ranks" in found["stderr"]
    assert "a.env" not in found


# ---- running


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The server's pod is on the first host; the others are for ranks."""
    if reason := why_not() or why_not_pods():
        pytest.skip(reason)
    if not shutil.which("openssl"):
        pytest.skip("needs the program openssl")
    folder = tmp_path_factory.mktemp("cluster")
    example = copy_example("matmul_distributed", folder)
    run_script(example / "export_model.py")
    image = folder / "image"
    shutil.copytree(example / "models", image / "models")
    shutil.copytree(example / "matmul", image / "servables" / "matmul")
    for path in [*DEPLOY.glob("*.py"), example / "weight.npy"]:
        shutil.copy(path, image)
    for mount_point in ("tls", "ranks"):
        (image / mount_point).mkdir()
    (folder / "certificates").mkdir()
    authority = Authority(folder / "certificates")
    (authority.folder / "service").write_text("subjectAltName=DNS:mindspore-serving-ranks\n")
    authority.issue("tls", kind="service")
    secret = {name: Path(authority.path(name)).read_bytes() for name in ("tls.crt", "tls.key", "ca.crt")}
    with Hosts(5) as hosts:
        yield Cluster(folder, load_manifests(MANIFESTS), image, {SECRET: secret}, hosts)


@pytest.fixture(scope="module")
def server_pod(cluster: Cluster) -> Iterator[Pod]:
    pod = cluster.pod(SERVER, "mindspore-serving-5d", 1).start()
    yield pod
    pod.kill()


def get(pod: Pod, path: str, body: object = None) -> tuple[int, bytes]:
    """From the pod's own host."""
    port = next(one["containerPort"] for one in pod.container["ports"] if one["name"] == "rest")

    def send() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(pod.address, port, timeout=60)
        try:
            connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
            reply = connection.getresponse()
            return reply.status, reply.read()
        except OSError as error:
            return 0, str(error).encode()
        finally:
            connection.close()

    return pod.cluster.hosts.run(pod.host, send)


def probe(pod: Pod, name: str) -> int:
    asked = pod.container[name]["httpGet"]
    assert asked["port"] == "rest"
    return get(pod, asked["path"])[0]


def check_answer(pod: Pod) -> None:
    weight = np.load(pod.cluster.image / "weight.npy")
    row = np.arange(weight.shape[0]) % 5
    status, text = get(pod, "/model/matmul:predict", {"instances": [{"x": row.tolist()}]})
    assert status == 200, text
    np.testing.assert_allclose(json.loads(text)["instances"][0]["y"], row @ weight, rtol=1e-4, atol=1e-4)


def all_logs(*pods: Pod) -> str:
    return "\n".join(pod.logs() for pod in pods)


def test_PodsOfTheManifestsAnswer_AndOneMovesToAnotherNode(cluster: Cluster, server_pod: Pod):
    pods = [cluster.pod(RANKS, f"{RANKS[1]}-{i}", 2 + i).start() for i in range(2)]
    try:
        wait_until(lambda: probe(server_pod, "livenessProbe") == 200, 120, server_pod.logs)
        wait_until(
            lambda: probe(server_pod, "readinessProbe") == 200, BACK_SECONDS, lambda: all_logs(server_pod, *pods)
        )
        wait_until(lambda: all(pod.is_ready() for pod in pods), 60, lambda: all_logs(*pods))
        check_answer(server_pod)

        assert pods[1].terminate() == 0, pods[1].logs()
        wait_until(lambda: probe(server_pod, "readinessProbe") == 503, 60, server_pod.logs)
        assert probe(server_pod, "livenessProbe") == 200
        moved = cluster.pod(RANKS, pods[1].name, 4)
        pods.append(moved.start())
        wait_until(
            lambda: probe(server_pod, "readinessProbe") == 200, BACK_SECONDS, lambda: all_logs(server_pod, *pods)
        )
        check_answer(server_pod)
    finally:
        for pod in pods:
            pod.kill()


def test_LaunchersOfTheUnitAnswer_WithWhatSshHasWritten(cluster: Cluster, server_pod: Pod, tmp_path: Path):
    """After the pods, to the same server. The unit's command and environment are run; systemd itself is not."""
    machines = tmp_path / "machines"
    machines.write_text("".join(f"m{i} {cluster.hosts.address(2 + i)} {i} 1\n" for i in range(2)))
    tls = tmp_path / "tls"
    tls.mkdir()
    for name, content in cluster.secrets[SECRET].items():
        (tls / name).write_bytes(content)
    names = tmp_path / "hosts"
    names.write_text(cluster.names())
    found = run_start_ranks(
        tmp_path,
        ["start", str(machines), "mindspore-serving-ranks:6200"],
        SERVING_MODEL_FILES=f"{cluster.image}/models/rank_{{rank}}.mindir",
        SERVING_RANKS_TLS=str(tls),
    )
    wait_until(lambda: probe(server_pod, "readinessProbe") != 200, 60, server_pod.logs)  # the pods' ranks have gone
    unit = unit_values(UNIT)
    (command,) = unit["ExecStart"]
    assert command == "/opt/serving/venv/bin/python /opt/serving/distributed_agents.py"
    processes = []
    try:
        for i in range(2):
            settings = dict(line.split("=", 1) for line in [*unit["Environment"], *found[f"m{i}.env"].splitlines()])
            state = tmp_path / f"state{i}"  # the unit's working directory
            state.mkdir()
            inside = f'mount --bind {shlex.quote(str(names))} /etc/hosts; cd {shlex.quote(str(state))}; exec "$@"'
            prefix = [*cluster.hosts.prefix(2 + i), "unshare", "--mount", "sh", "-c", inside, "sh"]
            with (state / "log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        [*prefix, sys.executable, str(DEPLOY / "distributed_agents.py")],
                        env={"PATH": os.environ["PATH"], **settings},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
                )
        wait_until(
            lambda: probe(server_pod, "readinessProbe") == 200,
            BACK_SECONDS,
            lambda: server_pod.logs() + "".join(path.read_text() for path in tmp_path.glob("state*/log")),
        )
        check_answer(server_pod)
        # The server's stop ends the launchers with exit code 0; Restart=always has them look for the next one.
        assert server_pod.terminate() == 0, server_pod.logs()
        assert [process.wait(60) for process in processes] == [0, 0]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait(30)
