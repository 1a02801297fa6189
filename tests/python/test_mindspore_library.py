"""The mindspore session library: which one is opened, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest

from mindspore_nets import PAIR, PYTHON, Add, Counter, Export, If, Mlp, float_inputs, ms, open_session
from mindspore_serving.worker import way
from mindspore_serving.worker.agreement import difference
from mindspore_serving.worker.mindspore_model import load_model
from mindspore_serving.worker.session_library import LIBRARY_DIR_VARIABLE, SessionLibrary

pytestmark = pytest.mark.filterwarnings("ignore")


def test_without_a_library_models_run_through_the_python_executor(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv(LIBRARY_DIR_VARIABLE, str(tmp_path / "nowhere"))
    way.usable_library.cache_clear()
    try:
        model = load_model(export(Mlp(), ((4, 16), np.float32)), with_batch_dim=True, device_type="CPU")
    finally:
        way.usable_library.cache_clear()
    assert (model.way, model.session_library, model.batch_sizes) == (PYTHON, None, [1, 2, 4])
    assert "python -m mindspore_serving.build_session" in caplog.text
    assert [info.dims for info in model.outputs] == [(4, 4)]
    values = float_inputs(model)[0]
    assert difference([model.python_run([values])[0][:2]], model.python_run([values[:2]])) == ""


def test_a_library_for_another_mindspore_is_not_opened(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    library = way.find_session_library()
    assert library is not None
    content = library.read_bytes()
    version = f"built-for-mindspore={ms.__version__}".encode()
    assert version in content
    (tmp_path / library.name).write_bytes(content.replace(version, b"built-for-mindspore=9" + version[21:]))
    monkeypatch.setenv(LIBRARY_DIR_VARIABLE, str(tmp_path))
    way.usable_library.cache_clear()
    try:
        model = load_model(export(Add(), *PAIR), with_batch_dim=False, device_type="CPU")
    finally:
        way.usable_library.cache_clear()
    assert model.way == PYTHON
    assert "it was built for MindSpore 9" in caplog.text


def test_the_library_refuses_another_mindspore_and_unknown_options(export: Export, library: SessionLibrary):
    model = load_model(export(Add(), *PAIR), with_batch_dim=False, device_type="CPU")
    with pytest.raises(RuntimeError, match=r"built for MindSpore .* but MindSpore 1\.0 is running.*build_session"):
        open_session(model, mindspore_version="1.0")
    with pytest.raises(RuntimeError, match="'colour' = 'red': unknown option"):
        open_session(model, colour="red")
    with pytest.raises(RuntimeError, match="compiled no graph 'nonsense'"):
        open_session(model, phases="0:nonsense")
    with pytest.raises(RuntimeError, match="must be auto, replay or run"):
        open_session(model, way="fast")
    with pytest.raises(RuntimeError, match="'phases' is missing"):
        library.open({})


def test_replay_is_refused_with_its_reason(export: Export):
    reasons = {If: "control flow", Counter: "side effect"}
    for net, reason in reasons.items():
        inputs = PAIR if net is If else PAIR[:1]
        model = load_model(export(net(), *inputs), with_batch_dim=False, device_type="CPU")
        with pytest.raises(RuntimeError, match=f"kernel replay: .*{reason}"):
            open_session(model, way="replay")
