"""The command that builds the session library: what it finds, and what it says when something is missing."""

from pathlib import Path

import pytest

from mindspore_serving import build_session


def test_finds_the_sources_and_mindspore():
    sources = build_session.find_sources()
    text = (sources / "CMakeLists.txt").read_text()
    for name in ("session.cc", "kernel_replay.cc", "backend_run.cc", "compiled_graph.cc"):
        assert name in text
        assert (sources / name).is_file()
    assert (sources / "../../../include/mindspore_serving/session.h").resolve().is_file()
    directory, version = build_session.find_mindspore()
    assert (directory / "include").is_dir()
    assert version.count(".") >= 2


def test_says_what_to_install_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"CMake is missing.*apt install cmake g\+\+"):
        build_session.build(tmp_path / "lib", 1)
    (tmp_path / "cmake").write_text("#!/bin/sh\n")
    (tmp_path / "cmake").chmod(0o755)
    with pytest.raises(SystemExit, match=r"A C\+\+ compiler is missing"):
        build_session.build(tmp_path / "lib", 1)


def test_a_failed_build_shows_the_compiler_s_words_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, script in (("cmake", 'echo "error: no such member"; exit 1'), ("g++", "exit 0")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(SystemExit, match=r"error: no such member[^$]*could not configure"):
        build_session.build(tmp_path / "lib", 1)
    assert not (tmp_path / "lib").exists()


def test_without_mindspore_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(build_session.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install mindspore"):
        build_session.find_mindspore()
