"""What importing the package does, and says when its native part is missing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mindspore_serving
from mindspore_serving import _native
from mindspore_serving.worker.session_library import SessionLibrary, find_library


def test_the_version_is_known():
    assert mindspore_serving.__version__.split(".")[0].isdigit() or mindspore_serving.__version__ == "0+unknown"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = mindspore_serving.nothing


def test_a_server_imports_neither_mindspore_nor_numpy():
    code = (
        "import sys; from mindspore_serving import server; from mindspore_serving.server import register\n"
        "print(sorted({'mindspore', 'numpy', 'grpc', 'google'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ([], r"There is no built _missing in .*\./dev build"),
        (["_missing.cpython-39-x86_64-linux-gnu.so"], "built for another Python .* --force-reinstall"),
        ([f"_missing.{sys.implementation.cache_tag}-x86_64-linux-gnu.so"], "a library that it needs is missing"),
    ],
)
def test_a_native_module_that_does_not_load_is_explained(monkeypatch, tmp_path, files, text):
    for file in files:
        (tmp_path / file).touch()
    monkeypatch.setattr(_native, "_PACKAGE", tmp_path)
    with pytest.raises(ImportError, match=text) as raised:
        _native.load_native("_missing")
    assert "native module _missing cannot be imported: No module named" in str(raised.value)


def test_the_package_ships_the_session_library_for_om_models_which_opens_without_ascend():
    path = find_library("libmsserving_session_acl.so")
    assert path is not None
    library = SessionLibrary(path)
    assert library.name == "acl"
    with pytest.raises(RuntimeError, match=r"libascendcl.so cannot be loaded \(/nowhere/lib.so.*LD_LIBRARY_PATH"):
        library.open({"file": "model.om", "library": "/nowhere/lib.so"})


def test_without_mindspore_the_release_to_install_is_named():
    code = (
        "import sys; sys.modules['mindspore'] = None\n"
        "from mindspore_serving.worker import _mindspore\n"
        "try:\n    _mindspore.import_mindspore()\nexcept RuntimeError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    project = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    (requirement,) = re.findall(r'^mindspore = \["(.*)"\]$', project, re.MULTILINE)
    assert done.stdout.startswith("MindSpore cannot be imported: ")
    assert done.stdout.rstrip().endswith(f"pip install '{requirement}'")
