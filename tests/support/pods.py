"""Runs what a Kubernetes manifest says on hosts of the test's own network: each pod is a process in a network and a
mount namespace, with the command, environment, working directory and mounts that the manifest gives its container.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hosts import Hosts

# Hidden in a pod by empty directories: every path that a manifest names lies in one of them.
_ROOTS = ("/opt", "/var/lib")
_IMAGE = "/opt/serving"

_SETUP = """
set -e
mount -t tmpfs tmpfs /opt
mount -t tmpfs tmpfs /var/lib
mount --bind "$1" /etc/hosts
directory=$2
shift 2
while [ "$1" != -- ]; do
  mkdir -p "$2"
  mount --bind "$1" "$2"
  [ "$3" = rw ] || mount -o remount,bind,ro "$2"
  shift 3
done
shift
cd "$directory"
exec "$@"
"""


def why_not_pods() -> str:
    """Why pods cannot be played here, besides the reasons that hosts cannot; "" if they can."""
    for program in ("unshare", "nsenter"):
        if shutil.which(program) is None:
            return f"the program {program} (util-linux) is missing"
    for path in (sys.prefix, sys.base_prefix):
        if path.startswith(tuple(f"{root}/" for root in _ROOTS)):
            return f"the interpreter lies in {path}, which pods hide"
    return ""


def load_manifests(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The objects of a file by kind and name."""
    objects = list(yaml.safe_load_all(path.read_text()))
    found = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    assert len(found) == len(objects), "two objects have the same name"
    return found


class Cluster:
    """What pods find: the manifests' objects, the image's files, secrets.

    Args:
        folder: A folder of the test's own.
        manifests: As `load_manifests` gives them.
        image: The folder that is /opt/serving in the image.
        secrets: For each secret its files.
        hosts: Where pods run: each on one host of its own.
    """

    def __init__(
        self,
        folder: Path,
        manifests: Mapping[tuple[str, str], dict[str, Any]],
        image: Path,
        secrets: Mapping[str, Mapping[str, bytes]],
        hosts: Hosts,
    ) -> None:
        self.folder = folder
        self.manifests = manifests
        self.image = image
        self.secrets = secrets
        self.hosts = hosts
        self._names: dict[str, int] = {}  # of services: the host of their pod

    def names(self) -> str:
        """Services as /etc/hosts has names."""
        return "".join(f"{self.hosts.address(host)} {name}\n" for name, host in self._names.items())

    def pod(self, owner: tuple[str, str], name: str, host: int) -> "Pod":
        """A pod of a Deployment or a StatefulSet, not yet started. The services that select it lead to it."""
        template = self.manifests[owner]["spec"]["template"]
        for (kind, service), one in self.manifests.items():
            if kind == "Service" and one["spec"]["selector"].items() <= template["metadata"]["labels"].items():
                self._names[service] = host
        return Pod(self, template["spec"], name, host)

    def files_of(self, volume: Mapping[str, Any]) -> Mapping[str, bytes]:
        if "configMap" in volume:
            data = self.manifests["ConfigMap", volume["configMap"]["name"]]["data"]
            return {name: text.encode() for name, text in data.items()}
        if "secret" in volume:
            return self.secrets[volume["secret"]["secretName"]]
        assert "emptyDir" in volume, volume
        return {}


class Pod:
    """One container in a network and mount namespace of its own."""

    def __init__(self, cluster: Cluster, spec: Mapping[str, Any], name: str, host: int) -> None:
        self.cluster, self.spec, self.name, self.host = cluster, spec, name, host
        (self.container,) = spec["containers"]
        self.address = cluster.hosts.address(host)
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = cluster.folder / f"{name}_on_{host}"

    def environment(self) -> dict[str, str]:
        fields = {"status.podIP": self.address, "metadata.name": self.name}
        return {
            one["name"]: one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
            for one in self.container["env"]
        }

    def mounts(self) -> list[tuple[Path, str, bool]]:
        """What lies where, and whether it may be written; the folders are made."""
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        made = [(self.cluster.image, _IMAGE, False)]
        for mount in self.container["volumeMounts"]:
            volume = volumes.pop(mount["name"])
            folder = self._folder / mount["name"]
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in self.cluster.files_of(volume).items():
                (folder / name).write_bytes(content)
            made.append((folder, mount["mountPath"], not mount.get("readOnly", False)))
        assert not volumes, f"nothing mounts {sorted(volumes)}"
        assert all(path.startswith(tuple(f"{root}/" for root in _ROOTS)) for _, path, _ in made), made
        return made

    def start(self) -> "Pod":
        arguments = []
        for folder, path, writable in self.mounts():
            arguments += [str(folder), path, "rw" if writable else "ro"]
        names = self._folder / "hosts"
        names.write_text("127.0.0.1 localhost\n" + self.cluster.names())
        prefix = [*self.cluster.hosts.prefix(self.host), "unshare", "--mount", "sh", "-c", _SETUP, "sh"]
        command = [*prefix, str(names), self.container["workingDir"], *arguments, "--", *self.container["command"]]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env={"PATH": path, "PYTHONUNBUFFERED": "1", **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    @property
    def log_path(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / "log"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def logs(self) -> str:
        """Its own and those that it has written into its working directory."""
        parts = [self.log_path, *sorted(self._folder.glob("*/serving_logs/*"))]
        return "\n".join(f"--- {self.name}: {path.name}\n{path.read_text(errors='replace')}" for path in parts)

    def exec(self, command: list[str]) -> int:
        """As kubelet runs a probe's command; the exit code."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--net", *command]
        return subprocess.run(inside, capture_output=True, timeout=60).returncode

    def is_ready(self) -> bool:
        return self.exec(self.container["readinessProbe"]["exec"]["command"]) == 0

    def terminate(self, timeout: float = 90) -> int:
        """SIGTERM; the exit code."""
        os.kill(self.pid, signal.SIGTERM)
        return self.wait_exit(timeout)

    def wait_exit(self, timeout: float = 90) -> int:
        assert self._process is not None
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} still runs after {timeout} s:\n{self.logs()}") from None

    def kill(self) -> None:
        """What it has started ends with it: the agents notice their launcher's end, workers their server's."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(30)
