"""What users give `startup_agents`: checked before anything is started."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from mindspore_serving.server import _checks


@dataclass(frozen=True)
class AgentFiles:
    """The files of this machine's ranks, in the order of the ranks.

    Attributes:
        models: For each rank its sub-graphs' files.
        groups: For each rank its group configuration file; empty if there are none.
    """

    models: tuple[tuple[Path, ...], ...]
    groups: tuple[Path, ...]

    def check_count(self, ranks: int) -> None:
        """Raise RuntimeError unless the files are those of so many ranks."""
        if len(self.models) != ranks:
            raise RuntimeError(
                f"Parameter 'model_files' should have one element for each rank of this machine, which are {ranks}, "
                f"but {len(self.models)} were given"
            )
        if self.groups and len(self.groups) != ranks:
            raise RuntimeError(
                f"Parameter 'group_config_files' should have one element for each rank of this machine, which are "
                f"{ranks}, but {len(self.groups)} were given"
            )


def script_directory() -> Path:
    """The directory of the start-up script; without a script the current one."""
    script = sys.argv[0] if sys.argv else ""
    if script and not script.startswith("-"):
        return Path(script).resolve().parent
    return Path.cwd()


def check_agent_files(model_files: object, group_config_files: object) -> AgentFiles:
    """Check the files' names, and that each can be read.

    Raises:
        RuntimeError: A parameter is invalid, or a file cannot be read.
    """
    models = _check_models(model_files)
    groups: tuple[Path, ...] = ()
    if group_config_files is not None:
        if not isinstance(group_config_files, (list, tuple)):
            raise RuntimeError(
                "Parameter 'group_config_files' should be list or tuple of str, or None, but a "
                f"{type(group_config_files).__name__} was given"
            )
        groups = tuple(_check_file(f"group_config_files[{i}]", one) for i, one in enumerate(group_config_files))
        if len(groups) > len(models):
            raise RuntimeError(
                "Parameter 'group_config_files' should have at most one element for each rank of this machine, which "
                f"are {len(models)}, but {len(groups)} were given"
            )
    return AgentFiles(models, groups)


def _check_models(value: object) -> tuple[tuple[Path, ...], ...]:
    if not isinstance(value, (list, tuple)):
        raise RuntimeError(
            "Parameter 'model_files' should be list or tuple of str, or of lists of str (sub-graphs), but a "
            f"{type(value).__name__} was given"
        )
    if not value:
        raise RuntimeError("Parameter 'model_files' should not be empty: one element for each rank is needed")
    models = []
    for i, one in enumerate(value):
        name = f"model_files[{i}]"
        if isinstance(one, (list, tuple)):
            if not one:
                raise RuntimeError(f"Parameter '{name}' should not be empty: at least one file is needed")
            models.append(tuple(_check_file(f"{name}[{k}]", file) for k, file in enumerate(one)))
        else:
            models.append((_check_file(name, one),))
        if len(models[i]) != len(models[0]):
            raise RuntimeError(
                f"Parameter 'model_files' should have as many sub-graphs for each rank, but '{name}' has "
                f"{len(models[i])} and 'model_files[0]' has {len(models[0])}"
            )
    return tuple(models)


def _check_file(name: str, value: object) -> Path:
    path = script_directory() / _checks.check_str(name, value)  # an absolute one stays as it is
    if not path.is_file():
        raise RuntimeError(f"Parameter '{name}': the file '{path}' does not exist")
    if not os.access(path, os.R_OK):
        raise RuntimeError(f"Parameter '{name}': the file '{path}' cannot be read by this user")
    return path
