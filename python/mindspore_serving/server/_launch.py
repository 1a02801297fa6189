"""What is checked and decided before any worker process is spawned."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mindspore_serving.server._servable_config import ServableStartConfig

LOG_DIRECTORY = "serving_logs"


@dataclass(frozen=True)
class WorkerPlan:
    """One worker process: how it is called in messages, what it is told, where its output goes."""

    label: str
    config_json: str
    log_file: str
    extra: bool = False  # runs Python stages only


@dataclass(frozen=True)
class ServablePlan:
    """One version of one servable with all of its workers, and the configs that asked for it."""

    name: str
    version: int
    workers: tuple[WorkerPlan, ...]
    directory: Path
    version_directory: Path | None
    configs: tuple[ServableStartConfig, ...]
    takes_leave: bool = False  # a worker that is stopped while it starts has launchers to tell

    @property
    def dec_key(self) -> bytes | None:
        """The user's own object, never a copy."""
        return self.configs[0].dec_key

    def with_configs(self, more: Iterable[ServableStartConfig]) -> ServablePlan:
        """The same, also asked for by `more`."""
        return replace(self, configs=(*self.configs, *more))

    def only_configs(self, configs: Iterable[ServableStartConfig]) -> ServablePlan:
        """The same, asked for by `configs` alone."""
        return replace(self, configs=tuple(configs))


@dataclass
class _Merged:
    """All start configs of one (name, version)."""

    directory: Path
    version_directory: Path | None
    first: ServableStartConfig
    device_ids: list[int]
    num_parallel_workers: int
    configs: list[ServableStartConfig]


def check_configs(servable_configs: object) -> tuple[ServableStartConfig, ...]:
    """Return one config, or a list or tuple of them, as a tuple.

    Raises:
        RuntimeError: Something else was given, or nothing.
    """
    if isinstance(servable_configs, ServableStartConfig):
        return (servable_configs,)
    if not isinstance(servable_configs, (list, tuple)):
        raise RuntimeError(
            "Parameter 'servable_configs' should be ServableStartConfig, or list or tuple of ServableStartConfig, but "
            f"a {type(servable_configs).__name__} was given"
        )
    if not servable_configs:
        raise RuntimeError(
            "Parameter 'servable_configs' should not be empty: at least one ServableStartConfig is needed"
        )
    for i, config in enumerate(servable_configs):
        if not isinstance(config, ServableStartConfig):
            raise RuntimeError(
                f"Parameter 'servable_configs[{i}]' should be ServableStartConfig, but a {type(config).__name__} was "
                "given"
            )
    return tuple(servable_configs)


def plan_servables(configs: Iterable[ServableStartConfig], log_directory: Path) -> list[ServablePlan]:
    """Check every config against the file system and merge those of the same servable version.

    Args:
        configs: What the user asked for.
        log_directory: Where the workers' log files go.

    Returns:
        One plan for each (name, version), in the order they were first named.

    Raises:
        RuntimeError: A directory, servable_config.py or version is missing, or two configs contradict each other.
    """
    directories: dict[str, Path] = {}
    merged: dict[tuple[str, int], _Merged] = {}
    for config in configs:
        directory = find_servable_directory(config)
        known = directories.setdefault(config.servable_name, directory)
        if known != directory:
            raise RuntimeError(
                f"The directory of servable '{config.servable_name}' differs between its start configs: "
                f"'{known}' and '{directory}'. One name stands for one directory"
            )
        version, version_directory = choose_version(directory / config.servable_name, config.version_number)
        entry = merged.get((config.servable_name, version))
        if entry is None:
            merged[config.servable_name, version] = _first(directory, version_directory, config)
        else:
            _merge(entry, config, version)
    return [_plan(name, version, entry, log_directory) for (name, version), entry in merged.items()]


def plan_distributed(
    config: ServableStartConfig, directory: Path, distributed: dict[str, object], log_directory: Path
) -> ServablePlan:
    """The plan of a servable whose model is run by ranks: one worker, and no version directory.

    Args:
        config: What the user asked for.
        directory: Its servable_directory, found.
        distributed: What the worker is told besides; JSON in the making.
        log_directory: Where the worker's log file goes.
    """
    name, version = config.servable_name, config.version_number
    worker = _plan_worker(name, version, _first(directory, None, config), 0, "distributed", log_directory, distributed)
    if version == 1:
        worker = replace(worker, log_file=str(log_directory / f"log_{name}_distributed.log"))
    return ServablePlan(name, version, (worker,), directory, None, (config,), takes_leave=True)


def plan_newest(plan: ServablePlan, log_directory: Path) -> ServablePlan:
    """What `plan` becomes with the newest version that its directory has now, for those of its configs that ask for the
    newest. There must be one, and the directory of a servable is where it was found first.

    Raises:
        RuntimeError: The directory has gone.
    """
    try:
        version, version_directory = choose_version(plan.directory / plan.name, 0)
    except OSError as error:
        raise RuntimeError(f"The directory of servable '{plan.name}' cannot be read: {error}") from error
    merged: _Merged | None = None
    for config in plan.configs:
        if config.version_number != 0:
            continue
        if merged is None:
            merged = _first(plan.directory, version_directory, config)
        else:
            _merge(merged, config, version)
    assert merged is not None, "no config asks for the newest version"
    return _plan(plan.name, version, merged, log_directory)


def find_servable_directory(config: ServableStartConfig) -> Path:
    """The absolute path of servable_directory. A relative one is looked up in the current working directory, then
    beside the start-up script.

    Raises:
        RuntimeError: The servable's directory or its servable_config.py does not exist.
    """
    bases = [Path.cwd()]
    script = sys.argv[0] if sys.argv else ""
    if script and not script.startswith("-"):
        bases.append(Path(script).resolve().parent)
    candidates = [(base / config.servable_directory).resolve() for base in bases]
    directory = next((path for path in candidates if (path / config.servable_name).is_dir()), candidates[0])
    servable = directory / config.servable_name
    if not directory.is_dir():
        raise RuntimeError(
            f"Check servable config failed, directory '{directory}' given as servable_directory does not exist"
        )
    if not servable.is_dir():
        raise RuntimeError(
            f"Check servable config failed, directory '{servable}' does not exist: servable_directory should hold a "
            f"directory named '{config.servable_name}'"
        )
    if not (servable / "servable_config.py").is_file():
        raise RuntimeError(f"Check servable config failed, file '{servable / 'servable_config.py'}' does not exist")
    return directory


def list_versions(servable: Path) -> dict[int, Path]:
    """The version directories of a servable: those whose name is a number of 1 or more. "1" wins over "01"."""
    versions: dict[int, Path] = {}
    for path in sorted(servable.iterdir()):
        name = path.name
        if not (name.isascii() and name.isdigit()) or int(name) < 1 or not path.is_dir():
            continue
        version = int(name)
        if version not in versions or name == str(version):
            versions[version] = path
    return versions


def choose_version(servable: Path, version_number: int) -> tuple[int, Path | None]:
    """The version to start and its directory; 0 asks for the newest.

    A servable without any version directory is version 1 (or the one asked for) with no directory, which is enough
    for a servable that declares no model; one that does fails in its worker.

    Raises:
        RuntimeError: There are versions, but not the one asked for.
    """
    versions = list_versions(servable)
    if not versions:
        path = servable / str(version_number)
        if version_number and path.exists():
            raise RuntimeError(f"The version path '{path}' of servable '{servable.name}' is not a directory")
        return max(version_number, 1), None
    if version_number == 0:
        newest = max(versions)
        return newest, versions[newest]
    if version_number not in versions:
        raise RuntimeError(
            f"There is no specified version directory of servable '{servable.name}': version {version_number} was "
            f"asked for, '{servable}' has {', '.join(str(version) for version in sorted(versions))}"
        )
    return version_number, versions[version_number]


def worker_command() -> list[str]:
    """The command of a worker process, to which the server appends the number of the control descriptor."""
    if not sys.executable:
        raise RuntimeError("The path of the Python interpreter is unknown (sys.executable is empty)")
    # Modules in the current directory must not hide the worker's; without -P (Python 3.10) the worker sees to it.
    safe_path = ["-P"] if sys.version_info >= (3, 11) else []
    return [sys.executable, *safe_path, "-m", "mindspore_serving.worker"]


def worker_environment() -> dict[str, str]:
    """The environment of worker processes: this process's, and what they need to find the package."""
    environment = dict(os.environ)
    environment["PYTHONUNBUFFERED"] = "1"  # what user code prints is in the log when the worker dies
    root = str(Path(__file__).resolve().parents[2])
    search = environment.get("PYTHONPATH", "").split(os.pathsep)
    # Only a package found through a path that a new interpreter would not have needs help. Appended, so that nothing
    # beside the package hides what the interpreter would find by itself.
    if root in _resolved(sys.path) and root not in _resolved(search) and not _is_site_directory(root):
        environment["PYTHONPATH"] = os.pathsep.join([part for part in search if part] + [root])
    return environment


def _resolved(paths: Sequence[str]) -> list[str]:
    return [str(Path(path or ".").resolve()) for path in paths]


def _is_site_directory(path: str) -> bool:
    return Path(path).name in ("site-packages", "dist-packages")


def _first(directory: Path, version_directory: Path | None, config: ServableStartConfig) -> _Merged:
    return _Merged(directory, version_directory, config, list(config.device_ids), config.num_parallel_workers, [config])


def _merge(entry: _Merged, config: ServableStartConfig, version: int) -> None:
    title = f"servable '{config.servable_name}' version {version}"
    if config.dec_key != entry.first.dec_key:
        raise RuntimeError(f"The dec key of {title} differs between its start configs")
    if config.dec_key is not None and config.dec_mode != entry.first.dec_mode:
        raise RuntimeError(
            f"The dec mode of {title} differs between its start configs: {entry.first.dec_mode} and {config.dec_mode}"
        )
    if config.device_type != entry.first.device_type:
        raise RuntimeError(
            f"The device type of {title} differs between its start configs: {entry.first.device_type} and "
            f"{config.device_type}"
        )
    entry.device_ids.extend(device for device in config.device_ids if device not in entry.device_ids)
    entry.configs.append(config)
    entry.num_parallel_workers = max(entry.num_parallel_workers, config.num_parallel_workers)


def _plan(name: str, version: int, entry: _Merged, log_directory: Path) -> ServablePlan:
    devices = entry.device_ids or [0]
    workers = [_plan_worker(name, version, entry, device, f"device{device}", log_directory) for device in devices]
    for extra in range(entry.num_parallel_workers - len(devices)):
        workers.append(_plan_worker(name, version, entry, None, f"extra{extra}", log_directory))
    return ServablePlan(name, version, tuple(workers), entry.directory, entry.version_directory, tuple(entry.configs))


def _plan_worker(
    name: str,
    version: int,
    entry: _Merged,
    device: int | None,
    kind: str,
    log_directory: Path,
    distributed: dict[str, object] | None = None,
) -> WorkerPlan:
    config: dict[str, object] = {
        "servable_directory": str(entry.directory),
        "servable_name": name,
        "version": version,
        "version_directory": None if entry.version_directory is None else str(entry.version_directory),
        "device_id": device,
        "device_type": entry.first.device_type,
        "dec_mode": None if entry.first.dec_key is None else entry.first.dec_mode,
        "extra": device is None,
        "has_extra_workers": entry.num_parallel_workers > max(len(entry.device_ids), 1),
    }
    if distributed is not None:
        config["distributed"] = distributed
    return WorkerPlan(
        label=f"{name} version {version} {kind}",
        config_json=json.dumps(config),
        log_file=str(log_directory / f"log_{name}_{kind}_version{version}.log"),
        extra=device is None,
    )
