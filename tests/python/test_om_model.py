"""OM models as a worker loads them; of the native worker there is a stand-in (tests/e2e/test_om_models.py has it)."""

import pytest

from mindspore_serving.worker import om_model
from mindspore_serving.worker.om_model import load_om_model

FLOAT32 = 11


class RecordingWorker:
    """Opens sessions of one signature."""

    def __init__(self, inputs, outputs, batch_sizes=(), error=None):
        self.opened = []
        self._error = error
        self._info = {
            "inputs": [(f"x{i}", FLOAT32, dims) for i, dims in enumerate(inputs)],
            "outputs": [(f"y{i}", FLOAT32, dims) for i, dims in enumerate(outputs)],
            "batch_sizes": list(batch_sizes),
            "way": "acl",
        }

    def open_session(self, library, options):
        if self._error:
            raise RuntimeError(self._error)
        self.opened.append((library, options))
        return 3

    def session_info(self, session):
        assert session == 3
        return self._info


@pytest.fixture(autouse=True)
def library(monkeypatch, tmp_path):
    path = tmp_path / om_model.LIBRARY_NAME
    path.touch()
    monkeypatch.setenv("MSSERVING_SESSION_LIBRARY_DIR", str(tmp_path))
    return path


@pytest.mark.parametrize("device_type", [None, "Ascend", "ascend"])
def test_a_fixed_batch_is_found_in_the_model(library, device_type):
    worker = RecordingWorker([[8, 2], [5]], [[8]])
    model, session = load_om_model(
        worker, "/m/a.om", with_batch_dim=True, without_batch_dim_inputs=(1,), device_type=device_type, device_id=2
    )
    assert session == 3
    assert worker.opened == [(str(library), {"file": "/m/a.om", "device_id": "2"})]
    assert (model.batch_size, model.batch_sizes, model.way) == (8, [8], "acl")
    assert [info.dims for info in model.inputs] == [(8, 2), (5,)]


def test_several_batch_sizes_are_the_models(library):
    model, _ = load_om_model(RecordingWorker([[8, 2]], [[8, 2]], (1, 4, 8)), "/m/a.om", with_batch_dim=True)
    assert (model.batch_size, model.batch_sizes) == (8, [1, 4, 8])


def test_without_batch_dimension_there_is_no_batch_size(library):
    model, _ = load_om_model(RecordingWorker([[2, 2]], [[2]]), "/m/a.om", with_batch_dim=False)
    assert (model.batch_size, model.batch_sizes) == (0, [])


@pytest.mark.parametrize(
    ("worker", "arguments", "message"),
    [
        (RecordingWorker([[4], [2]], [[4]]), {}, r"have no batch size in common \(x0\[4\], x1\[2\]\)"),
        (RecordingWorker([[4]], [[2]]), {}, r"batch size of its inputs is 4, but its outputs are of \[2\]"),
        (RecordingWorker([[4]], [[4]]), {"without_batch_dim_inputs": (1,)}, r"names an input that the model does not"),
        (
            RecordingWorker([[4]], [[4]], error="aclInit() failed"),
            {},
            r"Load model failed, /m/a.om: aclInit\(\) failed",
        ),
        (RecordingWorker([[4]], [[4]]), {"device_type": "GPU"}, "device_type 'GPU' is inconsistent with current runn"),
    ],
)
def test_what_does_not_fit_is_refused(worker, arguments, message):
    with pytest.raises(RuntimeError, match=message):
        load_om_model(worker, "/m/a.om", with_batch_dim=True, **arguments)


def test_an_installation_without_the_library_says_so(library):
    library.unlink()
    with pytest.raises(RuntimeError, match=r"this installation has no libmsserving_session_acl.so"):
        load_om_model(RecordingWorker([[4]], [[4]]), "/m/a.om", with_batch_dim=True)
