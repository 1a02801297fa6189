"""Batch sizes that a real model is compiled for."""

from typing import Any

import numpy as np
import pytest

from mindspore_nets import (
    PAIR,
    REPLAY,
    RUN,
    Add,
    BatchMean,
    Bias,
    Export,
    If,
    LeNet,
    Mlp,
    Tuples,
    UnusedInput,
    float_inputs,
    open_session,
)
from mindspore_serving.worker import mindspore_model
from mindspore_serving.worker.agreement import difference
from mindspore_serving.worker.mindspore_model import load_model

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("net", "inputs", "sizes"),
    [
        (Mlp, (((32, 16), np.float32),), [1, 2, 4, 8, 16, 32]),
        (LeNet, (((6, 1, 32, 32), np.float32),), [1, 2, 4, 6]),
        (UnusedInput, (((4, 2), np.float32), ((4, 2), np.float32)), [1, 2, 4]),
        (If, (((4, 2), np.float32), ((4, 2), np.float32)), [1, 2, 4]),
    ],
)
def test_every_batch_size_gives_the_rows_of_the_full_batch(export: Export, net: Any, inputs: Any, sizes: list[int]):
    model = load_model(export(net(), *inputs), with_batch_dim=True, device_type="CPU", compile_budget_s=60)
    assert model.batch_sizes == sizes
    assert model.batch_size == sizes[-1]
    values = [np.abs(array) for array in float_inputs(model)]  # one side of If
    with open_session(model) as session:
        assert session.batch_sizes == sizes
        full = session.run(values)
        assert difference(model.python_run(values), full) == ""
        for size in sizes:
            rows = [array[:size] for array in values]
            assert difference([output[:size] for output in full], session.run(rows)) == ""
            assert difference([output[:size] for output in full], model.python_run(rows)) == ""
        with pytest.raises(RuntimeError, match="not compiled for batch size 3"):
            session.run([array[:3] for array in values])


def test_stops_adding_batch_sizes_when_time_is_up_but_keeps_one_and_its_own(export: Export):
    path = export(Mlp(), ((32, 16), np.float32))
    assert load_model(path, with_batch_dim=True, device_type="CPU", compile_budget_s=0).batch_sizes == [1, 32]
    assert load_model(path, with_batch_dim=True, device_type="CPU", max_buckets=3).batch_sizes == [1, 4, 32]


def test_a_large_model_shares_its_weights_between_batch_sizes(export: Export, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mindspore_model, "_LARGE_FILE", 0)
    model = load_model(export(LeNet(), ((8, 1, 32, 32), np.float32)), with_batch_dim=True, device_type="CPU")
    assert model.way.startswith(REPLAY)
    assert (model.batch_sizes, len(model.cells)) == ([1, 8], 1)
    values = float_inputs(model)
    with open_session(model) as session:
        full = session.run(values)
        assert [info.dims for info in session.inputs] == [(8, 1, 32, 32)]
        assert difference(model.python_run(values), full) == ""
        assert difference([full[0][:1]], session.run([values[0][:1]])) == ""


def test_a_batch_size_that_disagrees_is_dropped(export: Export, caplog: pytest.LogCaptureFixture):
    model = load_model(export(BatchMean(), ((4, 2), np.float32)), with_batch_dim=True, device_type="CPU")
    assert (model.way, model.batch_sizes) == (REPLAY, [4])
    assert "batch size 1 is not used" in caplog.text
    with open_session(model) as session:
        assert session.batch_sizes == [4]


def test_an_input_without_batch_dimension_keeps_its_shape(export: Export):
    path = export(Bias(), ((4, 2), np.float32), ((4, 2), np.float32))
    with pytest.raises(RuntimeError, match="without_batch_dim_inputs"):
        load_model(path, with_batch_dim=True, without_batch_dim_inputs=(2,), device_type="CPU")
    path = export(Bias(), ((4, 2), np.float32), ((2,), np.float32))
    with pytest.raises(RuntimeError, match="batch size cannot be 0"):
        load_model(path, with_batch_dim=True, device_type="CPU")
    model = load_model(path, with_batch_dim=True, without_batch_dim_inputs=(1,), device_type="CPU")
    assert model.batch_sizes == [1, 2, 4]
    x, bias = float_inputs(model)
    with open_session(model) as session:
        np.testing.assert_array_equal(session.run([x[:2], bias])[0], x[:2] + bias)


def test_outputs_without_the_batch_are_refused(export: Export):
    with pytest.raises(RuntimeError, match="batch size of its inputs is 2, but its outputs"):
        load_model(export(Tuples(), *PAIR), with_batch_dim=True, device_type="CPU")


@pytest.mark.parametrize("with_batch_dim", [False, True])
def test_a_dynamic_batch_takes_any_number_of_rows(export: Export, with_batch_dim: bool):
    shape = ((None, 2), np.float32)
    model = load_model(export(Add(), shape, shape), with_batch_dim=with_batch_dim, device_type="CPU")
    assert (model.way, model.batch_size, model.batch_sizes) == (RUN, -1 if with_batch_dim else 0, [])
    assert [info.dims for info in model.outputs] == [(-1, 2)]
    with open_session(model) as session:
        for rows in (1, 5, 64):
            x, y = float_inputs(model, rows)
            np.testing.assert_array_equal(session.run([x, y])[0], x + y)
