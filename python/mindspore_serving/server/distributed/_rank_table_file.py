"""The rank table as a file, where HCCL wants one."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from mindspore_serving.server.distributed._agent_environment import CPU, Cluster
from mindspore_serving.server.distributed._configuration import Configuration

DIRECTORY = "temp_rank_table"


class RankTableFile:
    """A file in ``temp_rank_table`` of the current directory for as long as the ranks need it; none on a CPU.

    Raises:
        RuntimeError: It cannot be written.
    """

    def __init__(self, configuration: Configuration, cluster: Cluster) -> None:
        self._configuration = configuration
        self._cluster = cluster
        self._path: Path | None = None

    def __enter__(self) -> Cluster:
        if self._cluster.device_type == CPU:
            return self._cluster
        directory = Path.cwd() / DIRECTORY
        try:
            directory.mkdir(exist_ok=True)
            _remove_abandoned(directory)
            prefix = f"{self._configuration.servable_name}_{os.getpid()}_"
            handle, name = tempfile.mkstemp(".json", prefix, directory)
            self._path = Path(name)
            with os.fdopen(handle, "w") as file:
                json.dump(self._configuration.rank_table.content, file)
        except OSError as error:
            self._remove()
            raise RuntimeError(f"The rank table cannot be written into '{directory}': {error}") from error
        return replace(self._cluster, rank_table_file=self._path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # other launchers' files are in it
                self._path.parent.rmdir()
            self._path = None


def _remove_abandoned(directory: Path) -> None:
    """Files of launchers that were killed."""
    for path in directory.glob("*_*_*.json"):
        pid = path.stem.split("_")[-2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            path.unlink(missing_ok=True)
