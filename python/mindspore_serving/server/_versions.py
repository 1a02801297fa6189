"""The servable versions of a running server: joining, leaving, and following a servable's newest version.

One thread at a time (`_server` sees to it), but `wait` also returns, by raising, when the server is stopped meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mindspore_serving._native import load_native
from mindspore_serving.server import _launch

if TYPE_CHECKING:
    from mindspore_serving._core import Server as NativeServer

_POLL_SECONDS = 0.1
_LOG_WARNING = 2

Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass
class RunningVersion:
    """One version that was started. `plan.configs` whose version_number is 0 make it one that follows the newest."""

    plan: _launch.ServablePlan
    number: int  # the native server's
    config_file: Fingerprint  # of the servable_config.py it was loaded with

    @property
    def title(self) -> str:
        return f"servable '{self.plan.name}' version {self.plan.version}"


class RunningVersions:
    """What runs in one server.

    Args:
        native: The server.
        log_directory: Where workers' log files go.
        check_interrupted: Called while something is waited for; raises when the server is stopped or stopping.
    """

    def __init__(self, native: NativeServer, log_directory: Path, check_interrupted: Callable[[str], None]) -> None:
        self._native = native
        self._log_directory = log_directory
        self.check_interrupted = check_interrupted
        self._running: dict[tuple[str, int], RunningVersion] = {}
        self._failed: dict[tuple[str, int], Fingerprint] = {}  # what could not be loaded, as it was then
        self._seen: dict[tuple[str, int], Fingerprint] = {}  # new versions at the last look

    def take(self, plans: list[_launch.ServablePlan]) -> list[_launch.ServablePlan]:
        """Check plans that have been made against what runs.

        Raises:
            RuntimeError: A version runs already.
        """
        for plan in plans:
            self._check_new(plan)
        self._make_log_directory()
        return plans

    def start(self, plans: Sequence[_launch.ServablePlan], *, later: bool) -> None:
        """Start versions, and wait until requests reach them.

        Args:
            plans: What to start.
            later: Others serve already. A failure then takes back what this call started.

        Raises:
            RuntimeError: A worker has failed, or the server is being stopped.
        """
        command, environment = _launch.worker_command(), list(_launch.worker_environment().items())
        added: list[RunningVersion] = []
        try:
            for plan in plans:
                config_file = fingerprint([plan.directory / plan.name / "servable_config.py"])
                workers = [(worker.label, worker.config_json, worker.log_file, worker.extra) for worker in plan.workers]
                number = self._native.add_servable(
                    plan.name, plan.version, workers, command, environment, later, plan.dec_key, plan.takes_leave
                )
                added.append(RunningVersion(plan, number, config_file))
            self._wait_ready([version.number for version in added])
        except BaseException:
            if later:
                # The script is told the first reason, above all when it is the SystemExit of a signal.
                with contextlib.suppress(RuntimeError):
                    self._take_back(added)
            raise
        for version in added:
            self._running[version.plan.name, version.plan.version] = version

    def stop(self, name: str, version: int, drain_seconds: float) -> None:
        """Take one version out and wait until it has gone; 0 is the newest that runs.

        Raises:
            RuntimeError: It does not run, or the server is being stopped.
        """
        running = sorted(key for key in self._running if key[0] == name)
        key = (name, version) if version else running[-1] if running else (name, 0)
        if key not in self._running:
            others = ", ".join(str(number) for _, number in running)
            raise RuntimeError(
                f"Servable '{name}'{f' version {version}' if version else ''} is not running"
                + (f": its versions {others} are" if others else "")
            )
        self._leave(key, drain_seconds)

    def reload(self, drain_seconds: float, *, settled: bool) -> list[tuple[str, int]]:
        """Load versions newer than those that follow the newest, and let those leave.

        Args:
            drain_seconds: How long requests of a version that leaves may take.
            settled: Only what has not changed since the last call, and has not failed as it is now.

        Returns:
            What was loaded.

        Raises:
            RuntimeError: At least one could not be loaded; the others were.
        """
        loaded: list[tuple[str, int]] = []
        failures: list[str] = []
        for key, old in list(self._running.items()):
            if all(config.version_number != 0 for config in old.plan.configs):
                continue
            try:
                new = self._newest(old, settled=settled)
                if new is not None:
                    self._replace(key, new, drain_seconds)
                    loaded.append((new.name, new.version))
            except RuntimeError as error:
                self.check_interrupted("Loading a new version")
                failures.append(str(error))
        if failures:
            raise RuntimeError("\n".join(failures))
        return loaded

    def _check_new(self, plan: _launch.ServablePlan) -> None:
        if (plan.name, plan.version) in self._running:
            raise RuntimeError(
                "start_servables has been called already and is running servable "
                f"'{plan.name}' version {plan.version}: call stop() before starting again, or "
                f"stop_servable('{plan.name}', {plan.version})"
            )
        for other in self._running.values():
            if other.plan.name == plan.name and other.plan.directory != plan.directory:
                raise RuntimeError(
                    f"The directory of servable '{plan.name}' differs from that of the running version "
                    f"{other.plan.version}: '{plan.directory}' and '{other.plan.directory}'. One name stands for one "
                    "directory"
                )

    def _make_log_directory(self) -> None:
        try:
            self._log_directory.mkdir(exist_ok=True)
        except OSError as error:
            raise RuntimeError(f"The log directory '{self._log_directory}' cannot be made: {error}") from error

    def _take_back(self, versions: Iterable[RunningVersion]) -> None:
        for version in versions:
            self._native.retire(version.number, 0)
        for version in versions:
            self._wait_gone(version, "Taking back what was started")

    def _wait_ready(self, numbers: Sequence[int]) -> None:
        while True:
            failure = self._native.wait_ready(numbers, _POLL_SECONDS)
            self.check_interrupted("Starting the servables")
            if failure is None:
                return
            if failure:
                raise RuntimeError(failure)

    def _leave(self, key: tuple[str, int], drain_seconds: float) -> None:
        version = self._running.pop(key)
        self._native.retire(version.number, drain_seconds)
        self._wait_gone(version, f"Stopping {version.title}")

    def _wait_gone(self, version: RunningVersion, doing: str) -> None:
        while not self._native.wait_gone(version.number, _POLL_SECONDS):
            self.check_interrupted(doing)

    def _newest(self, old: RunningVersion, *, settled: bool) -> _launch.ServablePlan | None:
        """The plan of a newer version that is there and complete.

        Raises:
            RuntimeError: The servable's directory, or that of the version, cannot be read.
        """
        plan = _launch.plan_newest(old.plan, self._log_directory)
        if plan.version <= old.plan.version or plan.version_directory is None:
            return None
        key = (plan.name, plan.version)
        if key in self._running:
            return plan  # started by its number meanwhile
        config_file = plan.directory / plan.name / "servable_config.py"
        now = fingerprint([config_file, *_files_below(plan.version_directory)])
        if settled:
            before, self._seen[key] = self._seen.get(key), now
            if before != now or self._failed.get(key) == now:
                return None
        missing = self._missing_files(old, config_file, plan.version_directory)
        if missing:
            if not settled:
                _log_event("version_incomplete", plan, missing=" ".join(missing))
            return None
        return plan

    def _missing_files(self, old: RunningVersion, config_file: Path, version_directory: Path) -> list[str]:
        """Files of the running version's models that the new directory lacks. With another servable_config.py than that
        version was loaded with, nobody but the worker can know what is needed."""
        if fingerprint([config_file]) != old.config_file:
            return []
        description = json.loads(self._native.describe(old.number) or "{}")
        names = {path.name for path in _files_below(version_directory) if os.path.isfile(path)}
        return [model["file"] for model in description.get("models", ()) if model["file"] not in names]

    def _replace(self, key: tuple[str, int], plan: _launch.ServablePlan, drain_seconds: float) -> None:
        new_key = (plan.name, plan.version)
        running = self._running.get(new_key)
        if running is None:
            self._make_log_directory()
            assert plan.version_directory is not None  # _newest() found it
            files = [plan.directory / plan.name / "servable_config.py", *_files_below(plan.version_directory)]
            as_loaded = fingerprint(files)
            try:
                self.start([plan], later=True)
            except RuntimeError:
                self._failed[new_key] = as_loaded
                raise
        else:
            running.plan = running.plan.with_configs(plan.configs)
        self._failed.pop(new_key, None)
        self._seen.pop(new_key, None)
        old = self._running[key]
        pinned = [config for config in old.plan.configs if config.version_number != 0]
        if pinned:
            old.plan = old.plan.only_configs(pinned)
        else:
            self._leave(key, drain_seconds)


def fingerprint(paths: Iterable[Path]) -> Fingerprint:
    """Names, sizes and times of files, to see whether something has changed. What is not there is left out."""
    found = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((str(path), status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))


def _files_below(directory: Path) -> list[Path]:
    """What is in a version's directory, at any depth.

    Raises:
        RuntimeError: It cannot be read; say a folder in it has gone meanwhile.
    """
    try:
        return list(directory.rglob("*"))
    except OSError as error:
        raise RuntimeError(f"The version directory '{directory}' cannot be read: {error}") from error


def _log_event(event: str, plan: _launch.ServablePlan, **fields: str) -> None:
    core = cast(Any, load_native("_core"))
    values = {"servable": plan.name, "version": str(plan.version), **fields}
    core.log_event(_LOG_WARNING, event, list(values.items()))
