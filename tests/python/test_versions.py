"""Which versions are loaded when, against a native server that only notes what it is told."""

import json
import threading
from pathlib import Path

import pytest

from mindspore_serving.server import ServableStartConfig, _launch
from mindspore_serving.server._version_watch import VersionWatch
from mindspore_serving.server._versions import RunningVersions

LONG = 60.0  # what is waited for comes much earlier


class RecordingNative:
    def __init__(self):
        self.added = []
        self.retired = []
        self.ready = None  # what wait_ready returns; an exception is raised
        self.gone = True
        self.models = []

    def add_servable(self, name, version, workers, command, environment, joins_later, key=None, takes_leave=False):
        self.added.append((name, version, joins_later))
        return len(self.added)

    def wait_ready(self, numbers, timeout_s):
        if isinstance(self.ready, BaseException):
            raise self.ready
        return self.ready

    def retire(self, number, drain_seconds):
        self.retired.append((number, drain_seconds))

    def wait_gone(self, number, timeout_s):
        return self.gone

    def describe(self, number):
        return json.dumps({"models": [{"file": file} for file in self.models]})


def plan(versions, configs):
    return versions.take(_launch.plan_servables(configs, Path("/logs")))


@pytest.fixture
def native():
    return RecordingNative()


@pytest.fixture
def running(tmp_path, native):
    """Version 1 of `add`, followed as the newest."""
    (tmp_path / "add" / "1").mkdir(parents=True)
    (tmp_path / "add" / "servable_config.py").write_text("")
    versions = RunningVersions(native, tmp_path / "serving_logs", lambda doing: None)
    versions.start(plan(versions, [ServableStartConfig(str(tmp_path), "add", 0)]), later=False)
    return versions


def test_a_newer_version_replaces_the_one_that_is_followed(tmp_path, native, running):
    assert running.reload(3.0, settled=False) == []
    (tmp_path / "add" / "2").mkdir()
    assert running.reload(3.0, settled=False) == [("add", 2)]
    assert native.added == [("add", 1, False), ("add", 2, True)]
    assert native.retired == [(1, 3.0)]
    assert running.reload(3.0, settled=False) == []


def test_a_watch_wants_two_equal_looks(tmp_path, native, running):
    version = tmp_path / "add" / "2"
    version.mkdir()
    (version / "a").write_text("1")
    assert running.reload(3.0, settled=True) == []
    (version / "a").write_text("12")
    assert running.reload(3.0, settled=True) == []
    assert running.reload(3.0, settled=True) == [("add", 2)]


def fail_scans(monkeypatch, directory, times):
    """Let a folder in `directory` vanish under the first `times` scans of it."""
    scan, left = Path.rglob, [times]

    def rglob(path, pattern):
        if path == directory and left[0]:
            left[0] -= 1
            raise FileNotFoundError(2, "No such file or directory", f"{path}/gone")
        return scan(path, pattern)

    monkeypatch.setattr(Path, "rglob", rglob)


@pytest.mark.parametrize("settled", [False, True])
def test_a_folder_that_vanishes_fails_its_servable_alone(tmp_path, native, running, monkeypatch, settled):
    (tmp_path / "sub" / "1").mkdir(parents=True)
    (tmp_path / "sub" / "servable_config.py").write_text("")
    running.start(plan(running, [ServableStartConfig(str(tmp_path), "sub", 0)]), later=True)
    for name in ("add", "sub"):
        (tmp_path / name / "2").mkdir()
    if settled:
        assert running.reload(3.0, settled=True) == []
    fail_scans(monkeypatch, tmp_path / "add" / "2", 1)
    with pytest.raises(RuntimeError, match=r"version directory .* cannot be read") as error:
        running.reload(3.0, settled=settled)
    assert f"'{tmp_path}/add/2'" in str(error.value) and f"'{tmp_path}/add/2/gone'" in str(error.value)
    assert native.added[2:] == [("sub", 2, True)]
    assert running.reload(3.0, settled=settled) == [("add", 2)]


def test_a_watch_goes_on_after_a_folder_has_vanished(tmp_path, native, running, monkeypatch):
    (tmp_path / "add" / "2").mkdir()
    fail_scans(monkeypatch, tmp_path / "add" / "2", 1)
    loaded = threading.Event()

    def look():
        if running.reload(3.0, settled=True) == [("add", 2)]:
            loaded.set()

    watch = VersionWatch(0.01, threading.RLock(), look, lambda doing: None)
    watch.start()
    try:
        assert loaded.wait(LONG)
    finally:
        watch.end()
        watch.join()


def test_models_of_the_running_version_must_be_there_unless_the_config_is_another(tmp_path, native, running):
    native.models = ["add.mindir"]
    version = tmp_path / "add" / "2"
    (version / "deeper").mkdir(parents=True)
    assert running.reload(3.0, settled=False) == []
    (version / "deeper" / "add.mindir").write_text("")
    assert running.reload(3.0, settled=False) == [("add", 2)]
    (tmp_path / "add" / "3").mkdir()
    assert running.reload(3.0, settled=False) == []
    (tmp_path / "add" / "servable_config.py").write_text("# other models")
    assert running.reload(3.0, settled=False) == [("add", 3)]


def test_what_could_not_be_loaded_waits_for_a_change(tmp_path, native, running):
    version = tmp_path / "add" / "2"
    version.mkdir()
    native.ready = "it is broken"
    assert running.reload(3.0, settled=True) == []
    with pytest.raises(RuntimeError, match="it is broken"):
        running.reload(3.0, settled=True)
    assert native.retired == [(2, 0)], "what was started is taken back, and the old one stays"
    native.ready = None
    assert running.reload(3.0, settled=True) == []
    (version / "mended").write_text("")
    assert running.reload(3.0, settled=True) == []
    assert running.reload(3.0, settled=True) == [("add", 2)]


def test_the_end_of_the_script_is_not_swallowed_while_a_version_is_taken_back(tmp_path, native, running):
    """A signal's SystemExit comes where a version is waited for; the server has stopped, so taking back fails."""

    def interrupted(doing):
        raise RuntimeError(f"{doing} was interrupted")

    native.ready, native.gone = SystemExit(0), False
    running.check_interrupted = interrupted
    (tmp_path / "add" / "2").mkdir()
    with pytest.raises(SystemExit):
        running.reload(3.0, settled=False)


def test_a_running_version_or_another_directory_is_refused(tmp_path, native, running):
    with pytest.raises(RuntimeError, match="has been called already and is running servable 'add' version 1"):
        plan(running, [ServableStartConfig(str(tmp_path), "add", 1, version_number=1)])
    (tmp_path / "elsewhere" / "add" / "4").mkdir(parents=True)
    (tmp_path / "elsewhere" / "add" / "servable_config.py").write_text("")
    with pytest.raises(RuntimeError, match="directory of servable 'add' differs from that of the running version 1"):
        plan(running, [ServableStartConfig(str(tmp_path / "elsewhere"), "add", 1)])
    assert native.added == [("add", 1, False)]


def test_stopping_takes_the_newest_unless_told(tmp_path, native, running):
    (tmp_path / "add" / "2").mkdir()
    running.start(plan(running, [ServableStartConfig(str(tmp_path), "add", 0, version_number=2)]), later=True)
    running.stop("add", 0, 5.0)
    assert native.retired == [(2, 5.0)]
    with pytest.raises(RuntimeError, match="'add' version 2 is not running: its versions 1 are"):
        running.stop("add", 2, 5.0)
    running.stop("add", 1, 5.0)
    with pytest.raises(RuntimeError, match=r"'add' is not running$"):
        running.stop("add", 0, 5.0)
