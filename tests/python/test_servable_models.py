"""Loading the models of a servable: what each is loaded with, and what is told of that which has no effect."""

import logging

import pytest

from mindspore_serving.server import register
from mindspore_serving.server.register._registry import ModelDeclaration, Registration
from mindspore_serving.worker import mindspore_model, servable_models
from mindspore_serving.worker.loaded_model import LoadedModel
from mindspore_serving.worker.main import StartOrder
from mindspore_serving.worker.session_library import TensorInfo


class RecordingWorker:
    """The native worker's part of loading: numbers for what it is given."""

    def __init__(self):
        self.sessions = []
        self.models = []
        self.waits_us = []

    def add_python_session(self, inputs, outputs, batch_sizes, run, way):
        self.sessions.append(batch_sizes)
        return len(self.sessions) - 1

    def decrypt(self, path, mode):
        return f"{path} by {mode}".encode()

    def add_model(self, sessions, with_batch_dim, without_batch_dim_inputs, batch_size, max_wait_us):
        self.waits_us.append(max_wait_us)
        self.models.append((sessions, with_batch_dim, without_batch_dim_inputs, batch_size))
        return 10 + len(self.models)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Loads declarations whose files exist; returns the worker, the models and what each file was loaded with."""
    loads = []

    def load_model(file, **kwargs):
        loads.append((file.rpartition("/")[2], kwargs))
        kwargs["on_device"]("CPU")
        size = 8 if kwargs["with_batch_dim"] else 0
        info = TensorInfo("x", 11, (2,))
        return LoadedModel(file, [info], [info], batch_size=size, batch_sizes=[size] if size else [])

    monkeypatch.setattr(mindspore_model, "load_model", load_model)

    def run(*declarations, counts=None, version_directory=tmp_path):
        for declaration in declarations:
            for file in declaration.files:
                if not file.startswith("missing"):
                    (tmp_path / file).touch()
        registration = Registration("/somewhere/calc", models=list(declarations), model_counts=counts or {})
        order = StartOrder(
            "/somewhere", "calc", 1, None if version_directory is None else str(version_directory), 0, None, "m"
        )
        worker = RecordingWorker()
        return worker, servable_models.load_models(worker, order, registration), loads

    return run


def declaration(*files, with_batch_dim=True, **kwargs):
    arguments = {"model_format": "mindir", "options": None, "without_batch_dim_inputs": (), **kwargs}
    return ModelDeclaration(declared_by="declare_model", files=files, with_batch_dim=with_batch_dim, **arguments)


def test_every_file_becomes_a_session_and_every_declaration_a_model(load):
    worker, models, loads = load(
        declaration("a.mindir", "b.mindir", without_batch_dim_inputs=(1,)),
        declaration("c.mindir", with_batch_dim=False, without_batch_dim_inputs=(1,)),
    )
    assert worker.models == [([0, 1], True, [1], 8), ([2], False, [], 0)]
    assert [(model.number, model.fixed_batch, model.max_batch) for model in models] == [(11, 8, 8), (12, 0, 1)]
    assert [file for file, _ in loads] == ["a.mindir", "b.mindir", "c.mindir"]
    assert {kwargs["decrypt"]("file") for _, kwargs in loads} == {b"file by m"}
    assert [entry["file"] for entry in servable_models.describe_models(models)] == ["a.mindir", "b.mindir", "c.mindir"]


def test_how_long_a_batch_may_wait_is_told_in_microseconds(load):
    worker, _, _ = load(
        declaration("a.mindir"),
        declaration("b.mindir", max_batch_wait_ms=2.5),
        declaration("c.mindir", max_batch_wait_ms=0.0001),
    )
    assert worker.waits_us == [0, 2500, 1]


def test_the_largest_thread_num_counts_for_all_models(load):
    _, _, loads = load(
        declaration("a.mindir", context=register.Context(thread_num=2)),
        declaration("b.mindir"),
        declaration("c.mindir", context=register.Context(thread_num=3)),
        declaration("d.mindir", context=register.Context()),
    )
    assert [kwargs["kernel_threads"] for _, kwargs in loads] == [3, 3, 3, 3]


def test_without_a_thread_num_the_number_is_measured(load):
    _, _, loads = load(declaration("a.mindir", context=register.Context()), declaration("b.mindir"))
    assert [kwargs["kernel_threads"] for _, kwargs in loads] == [0, 0]


def test_what_has_no_effect_is_logged(load, caplog):
    context = register.Context(thread_num=1, enable_parallel=True)
    context.append_device_info(register.GPUDeviceInfo(precision_mode="fp16"))
    context.append_device_info(register.CPUDeviceInfo())
    options = register.AclOptions(output_type="FP16")
    with caplog.at_level(logging.WARNING):
        load(
            declaration("a.mindir", "a2.mindir", context=context, config_file="/somewhere/mixed.cfg"),
            declaration("b.mindir", options=options),
            declaration("d.mindir"),
        )
    assert [record.getMessage().partition(": ")[0] for record in caplog.records] == [
        f"{text} has no effect on this device"
        for text in (
            "GPUDeviceInfo(precision_mode='fp16') of declare_model for model 'a.mindir;a2.mindir'",
            "enable_parallel=True of declare_model for model 'a.mindir;a2.mindir'",
            "config_file '/somewhere/mixed.cfg' of declare_model for model 'a.mindir;a2.mindir'",
            "AclOptions(output_type='FP16') of declare_model for model 'b.mindir'",
        )
    ]


def test_counts_that_do_not_fit_name_the_model_and_the_subgraph(load):
    with pytest.raises(
        RuntimeError,
        match=r"The inputs count 2 with which model 'b.mindir;c.mindir' is used in the methods of servable 'calc' is "
        r"not equal to the count 1 of the model's inputs \(subgraph 1\)",
    ):
        load(declaration("a.mindir"), declaration("b.mindir", "c.mindir"), counts={(0, 0): (1, 1), (1, 1): (2, 1)})


@pytest.mark.parametrize("file", ["missing.mindir", "missing.om"])
def test_a_model_that_cannot_be_loaded_is_refused(load, file):
    message = (
        f"Load model failed, servable directory: '/somewhere'.*: the model file '.*/{file}' does not exist; "
        "there is first.mindir"
    )
    with pytest.raises(RuntimeError, match=message):
        load(declaration("first.mindir"), declaration(file, model_format=file.rpartition(".")[2]))


def test_models_need_a_version_directory_and_no_models_need_none(load):
    with pytest.raises(RuntimeError, match="There is no valid version of servable 'calc'"):
        load(declaration("a.mindir"), version_directory=None)
    assert load(version_directory=None)[1] == []
