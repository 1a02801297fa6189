"""What start_servables checks and decides before it spawns a process."""

import json
import os
import sys
from pathlib import Path

import pytest

from mindspore_serving.server import ServableStartConfig, _launch

KEY = bytes(range(16))


@pytest.fixture
def servables(tmp_path):
    """A servable directory with the servables `add` (versions 1, 2, 10) and `other` (version 1)."""
    root = tmp_path / "my servables"
    for name, versions in (("add", (1, 2, 10)), ("other", (1,))):
        (root / name).mkdir(parents=True)
        (root / name / "servable_config.py").write_text("")
        for version in versions:
            (root / name / str(version)).mkdir()
    return root


def plan(*configs, log_directory=Path("/logs")):
    return _launch.plan_servables(configs, log_directory)


def config_of(worker):
    return json.loads(worker.config_json)


def test_zero_is_the_newest_version_by_number(servables):
    (planned,) = plan(ServableStartConfig(str(servables), "add", 0))
    assert (planned.name, planned.version) == ("add", 10)
    (worker,) = planned.workers
    assert config_of(worker) == {
        "servable_directory": str(servables),
        "servable_name": "add",
        "version": 10,
        "version_directory": str(servables / "add" / "10"),
        "device_id": 0,
        "device_type": None,
        "dec_mode": None,
    }
    assert worker.log_file == "/logs/log_add_device0_version10.log"


def test_only_directories_named_by_a_number_from_one_are_versions(servables):
    add = servables / "add"
    for name in ("0", "v3", "__pycache__", "-4", "٣", "11x"):
        (add / name).mkdir()
    (add / "99").write_text("a file")
    assert sorted(_launch.list_versions(add)) == [1, 2, 10]


def test_leading_zeros_name_the_same_version(servables):
    (servables / "add" / "011").mkdir()
    (servables / "add" / "01").mkdir()
    versions = _launch.list_versions(servables / "add")
    assert versions[11].name == "011"
    assert versions[1].name == "1"
    (planned,) = plan(ServableStartConfig(str(servables), "add", 0))
    assert planned.version == 11
    assert config_of(planned.workers[0])["version_directory"].endswith("/011")


def test_what_is_missing_is_named(servables, tmp_path):
    with pytest.raises(RuntimeError, match=r"Check servable config failed, directory '.*nowhere'"):
        plan(ServableStartConfig(str(tmp_path / "nowhere"), "add", 0))
    with pytest.raises(RuntimeError, match=r"Check servable config failed, directory '.*subtract'"):
        plan(ServableStartConfig(str(servables), "subtract", 0))
    with pytest.raises(RuntimeError, match=r"specified version .* version 3 was asked for, .* has 1, 2, 10"):
        plan(ServableStartConfig(str(servables), "add", 0, version_number=3))
    (servables / "add" / "servable_config.py").unlink()
    with pytest.raises(RuntimeError, match=r"Check servable config failed, file '.*servable_config.py'"):
        plan(ServableStartConfig(str(servables), "add", 0))


def test_a_version_that_is_a_file_is_no_version(servables):
    (servables / "other" / "1").rmdir()
    (servables / "other" / "1").write_text("a file")
    with pytest.raises(RuntimeError, match=r"version path '.*/other/1' .* is not a directory"):
        plan(ServableStartConfig(str(servables), "other", 0, version_number=1))


def test_a_servable_without_versions_is_left_to_its_worker(servables):
    (servables / "other" / "1").rmdir()
    (planned,) = plan(ServableStartConfig(str(servables), "other", 0))
    assert planned.version == 1
    assert config_of(planned.workers[0])["version_directory"] is None


def test_each_device_gets_a_worker(servables):
    (planned,) = plan(ServableStartConfig(str(servables), "add", (3, 1)))
    assert [config_of(worker)["device_id"] for worker in planned.workers] == [3, 1]
    assert [Path(worker.log_file).name for worker in planned.workers] == [
        "log_add_device3_version10.log",
        "log_add_device1_version10.log",
    ]


def test_extra_workers_share_the_devices_in_turn(servables):
    (planned,) = plan(ServableStartConfig(str(servables), "add", (3, 1), num_parallel_workers=5))
    assert [config_of(worker)["device_id"] for worker in planned.workers] == [3, 1, 3, 1, 3]
    assert Path(planned.workers[2].log_file).name == "log_add_extra0_version10.log"
    assert len({worker.log_file for worker in planned.workers}) == 5
    (fewer,) = plan(ServableStartConfig(str(servables), "add", (3, 1), num_parallel_workers=1))
    assert len(fewer.workers) == 2


def test_configs_of_one_version_are_merged(servables):
    first, second, other = plan(
        ServableStartConfig(str(servables), "add", (0, 1)),
        ServableStartConfig(str(servables), "other", 0),
        ServableStartConfig(str(servables), "add", (1, 2), version_number=10),
        ServableStartConfig(str(servables), "add", 0, version_number=2),
    )
    assert [(p.name, p.version) for p in (first, second, other)] == [("add", 10), ("other", 1), ("add", 2)]
    assert [config_of(worker)["device_id"] for worker in first.workers] == [0, 1, 2]


def test_contradicting_configs_are_refused(servables, tmp_path):
    elsewhere = tmp_path / "elsewhere" / "add"
    (elsewhere / "1").mkdir(parents=True)
    (elsewhere / "servable_config.py").write_text("")
    base = ServableStartConfig(str(servables), "add", 0)
    with pytest.raises(RuntimeError, match="directory of servable 'add' differs"):
        plan(base, ServableStartConfig(str(elsewhere.parent), "add", 1))
    with pytest.raises(RuntimeError, match="dec key of servable 'add' version 10 differs"):
        plan(base, ServableStartConfig(str(servables), "add", 1, dec_key=KEY))
    with pytest.raises(RuntimeError, match="dec mode of servable 'add' version 10 differs"):
        plan(
            ServableStartConfig(str(servables), "add", 0, dec_key=KEY),
            ServableStartConfig(str(servables), "add", 1, dec_key=KEY, dec_mode="AES-CBC"),
        )
    with pytest.raises(RuntimeError, match="device type of servable 'add' version 10 differs"):
        plan(base, ServableStartConfig(str(servables), "add", 1, device_type="CPU"))


def test_one_directory_may_be_written_in_two_ways(servables, monkeypatch):
    monkeypatch.chdir(servables)
    link = servables.parent / "link"
    link.symlink_to(servables)
    (planned,) = plan(ServableStartConfig(".", "add", 0), ServableStartConfig(str(link), "add", 1))
    assert len(planned.workers) == 2


def test_a_relative_directory_is_looked_up_here_then_beside_the_script(servables, tmp_path, monkeypatch):
    monkeypatch.chdir(servables.parent)
    assert _launch.find_servable_directory(ServableStartConfig("my servables", "add", 0)) == servables
    away = tmp_path / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    monkeypatch.setattr(sys, "argv", [str(servables.parent / "serving_server.py")])
    assert _launch.find_servable_directory(ServableStartConfig("my servables", "add", 0)) == servables


def test_the_key_travels_beside_the_config_and_is_not_shown(servables):
    (planned,) = plan(ServableStartConfig(str(servables), "add", 0, dec_key=KEY))
    assert planned.dec_key is KEY
    assert config_of(planned.workers[0])["dec_mode"] == "AES-GCM"
    assert KEY.hex() not in planned.workers[0].config_json
    assert str(KEY) not in repr(planned)
    assert KEY.hex() not in repr(planned)
    assert KEY.hex() not in " ".join(_launch.worker_command())
    assert KEY.hex() not in str(_launch.worker_environment())


def test_only_start_configs_are_taken():
    config = ServableStartConfig("/models", "add", 0)
    assert _launch.check_configs(config) == (config,)
    assert _launch.check_configs([config, config]) == (config, config)
    for wrong, text in (
        (None, "should be ServableStartConfig, or list or tuple"),
        ("add", "but a str was given"),
        ([], "should not be empty"),
        ((config, "add"), r"servable_configs\[1\]' should be ServableStartConfig, but a str"),
    ):
        with pytest.raises(RuntimeError, match=text):
            _launch.check_configs(wrong)


def test_workers_run_the_same_python_and_inherit_the_environment(monkeypatch):
    monkeypatch.setenv("SERVING_TEST_MARK", "a b=c")
    command, environment = _launch.worker_command(), _launch.worker_environment()
    assert command[0] == sys.executable
    assert command[-2:] == ["-m", "mindspore_serving.worker"]
    assert environment["SERVING_TEST_MARK"] == "a b=c"


def test_a_package_found_by_path_alone_is_found_by_workers_too(monkeypatch):
    root = str(Path(_launch.__file__).resolve().parents[2])
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setattr(sys, "path", [root])
    monkeypatch.setattr(_launch, "_is_site_directory", lambda path: False)
    assert _launch.worker_environment()["PYTHONPATH"] == os.pathsep.join(["/somewhere", root])
    monkeypatch.setenv("PYTHONPATH", root)
    assert _launch.worker_environment()["PYTHONPATH"] == root
