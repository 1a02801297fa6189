"""Real models, exported here, loaded as a worker loads them, and run in each way."""

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindspore_nets import (
    PAIR,
    REPLAY,
    RUN,
    Add,
    ConstantOperands,
    Constants,
    Counter,
    Export,
    Identity,
    If,
    Mlp,
    Noise,
    Or,
    Tensor,
    Tuples,
    Twice,
    Unique,
    UnusedInput,
    While,
    float_inputs,
    open_session,
)
from mindspore_serving import _core
from mindspore_serving.worker.agreement import difference
from mindspore_serving.worker.mindspore_model import load_model
from mindspore_serving.worker.session_library import Session, TensorInfo

pytestmark = pytest.mark.filterwarnings("ignore")


KEY = b"0123456789abcdef"


@pytest.mark.parametrize(
    ("net", "expected_way"),
    [
        (Add, REPLAY),
        (If, RUN),
        (While, RUN),
        (Constants, REPLAY),
        (Identity, REPLAY),
        (Tuples, REPLAY),
        (ConstantOperands, REPLAY),
        (UnusedInput, REPLAY),
    ],
)
def test_takes_the_fastest_way_that_fits_and_computes_the_same(export: Export, net: Any, expected_way: str):
    model = load_model(export(net(), *PAIR), with_batch_dim=False, device_type="CPU")
    assert model.way == expected_way
    assert (model.batch_size, model.batch_sizes) == (0, [])
    for seed in range(3):
        inputs = float_inputs(model, seed=seed)
        expected = net()(*[Tensor(array) for array in inputs])
        flat = list(_flat(expected))
        with open_session(model) as session:
            assert session.way == expected_way
            assert difference(flat, session.run(inputs)) == ""
        assert difference(flat, model.python_run(inputs)) == ""


def _flat(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, (tuple, list)):
        for element in value:
            yield from _flat(element)
    else:
        yield value.asnumpy()


def test_describes_inputs_and_outputs(export: Export):
    model = load_model(export(Tuples(), *PAIR), with_batch_dim=False, device_type="CPU")
    assert model.inputs == [TensorInfo("x", 11, (2, 2)), TensorInfo("y", 11, (2, 2))]
    assert [(info.dtype, info.dims) for info in model.outputs] == [
        (11, (2, 2)),
        (11, (2, 2)),
        (11, (2, 2)),
        (11, (4,)),
        (11, ()),
    ]
    with open_session(model) as session:
        assert [info.dims for info in session.inputs] == [(2, 2), (2, 2)]
        assert [info.dims for info in session.outputs] == [info.dims for info in model.outputs]


def test_an_output_whose_size_depends_on_the_values(export: Export):
    model = load_model(export(Unique(), ((6,), np.float32)), with_batch_dim=False, device_type="CPU")
    assert (model.way, model.outputs[0].dims) == (RUN, (-1,))
    with open_session(model) as session:
        np.testing.assert_array_equal(session.run([np.float32([3, 1, 3, 3, 2, 1])])[0], [3, 1, 2])
        assert session.run([np.zeros(6, np.float32)])[0].shape == (1,)


def test_a_model_with_state_starts_with_the_state_of_its_file(export: Export):
    model = load_model(export(Counter(), ((2, 2), np.float32)), with_batch_dim=False, device_type="CPU")
    assert model.way == RUN
    one = np.ones((2, 2), np.float32)
    with open_session(model) as session:
        assert [float(session.run([one])[0][0, 0]) for _ in range(3)] == [1, 2, 3]
    assert float(model.python_run([one])[0][0, 0]) == 4


def test_a_model_that_returns_noise_is_served(export: Export, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    model = load_model(export(Noise(), ((4, 2), np.float32)), with_batch_dim=False, device_type="CPU")
    assert model.session_library is not None
    assert "only shapes and types were checked" in caplog.text


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.int32, np.int64, np.float16, np.float32, np.float64, np.bool_]
)
def test_element_types(export: Export, dtype: Any):
    path = export(Twice(), ((2, 3), dtype))
    model = load_model(path, with_batch_dim=False, device_type="CPU")
    assert model.way == REPLAY
    values = np.array([[0, 1, 0], [1, 1, 0]], dtype)
    with open_session(model) as session:
        np.testing.assert_array_equal(session.run([values])[0], values.astype(np.float32) + 1)
        with pytest.raises(RuntimeError, match="input 0"):
            session.run([values.astype(np.uint16)])


def test_boolean_outputs(export: Export):
    pair = ((3,), np.bool_)
    model = load_model(export(Or(), pair, pair), with_batch_dim=False, device_type="CPU")
    with open_session(model) as session:
        outputs = session.run([np.array([True, False, False]), np.array([False, False, True])])
    np.testing.assert_array_equal(outputs[0], [True, False, True])


def test_inputs_that_do_not_fit_are_refused_by_the_session(export: Export):
    for net in (Add, If):
        model = load_model(export(net(), *PAIR), with_batch_dim=False, device_type="CPU")
        good = np.zeros((2, 2), np.float32)
        with open_session(model) as session:
            for bad in (np.zeros((2, 3), np.float32), np.zeros(4, np.float32), np.zeros((2, 2), np.float64)):
                with pytest.raises(RuntimeError, match=r"input 1 \(.*\) wants type 11 \[2, 2\]"):
                    session.run([good, bad])
            np.testing.assert_array_equal(session.run([good, good])[0], good)


def decrypt_with(key: bytes, mode: str) -> Callable[[str], bytes]:
    return lambda path: _core.decrypt_model_file(path, key, mode)


@pytest.mark.parametrize("length", [16, 24, 32])
@pytest.mark.parametrize("mode", ["AES-GCM", "AES-CBC"])
def test_an_encrypted_model_opens_with_its_key_alone(export: Export, mode: str, length: int):
    key = (KEY * 2)[:length]
    path = export(Add(), *PAIR, enc_key=key, enc_mode=mode)
    model = load_model(path, with_batch_dim=False, decrypt=decrypt_with(key, mode), device_type="CPU")
    assert model.way == REPLAY
    assert model.inputs[0] == TensorInfo("x", 11, (2, 2))
    with pytest.raises(RuntimeError, match=r"model\.mindir.*are dec_key and dec_mode"):
        load_model(path, with_batch_dim=False, decrypt=decrypt_with(key[::-1], mode), device_type="CPU")
    other = "AES-CBC" if mode == "AES-GCM" else "AES-GCM"
    with pytest.raises(RuntimeError, match=r"model\.mindir.*are dec_key and dec_mode"):
        load_model(path, with_batch_dim=False, decrypt=decrypt_with(key, other), device_type="CPU")
    with pytest.raises(RuntimeError, match=r"model\.mindir.*it is encrypted"):
        load_model(path, with_batch_dim=False, device_type="CPU")


def test_a_file_that_is_no_model_is_named(tmp_path: Path, export: Export):
    missing = tmp_path / "missing.mindir"
    with pytest.raises(RuntimeError, match=r"missing\.mindir: No such file"):
        load_model(str(missing), with_batch_dim=False, device_type="CPU")
    model = Path(export(Mlp(), ((2, 16), np.float32))).read_bytes()
    for content in (b"", b"not a model at all", model[: len(model) // 2], bytes(range(256)) * 8):
        bad = tmp_path / "bad.mindir"
        bad.write_bytes(content)
        with pytest.raises(RuntimeError, match=r"Load model failed, .*bad\.mindir: it is not a MindIR"):
            load_model(str(bad), with_batch_dim=False, device_type="CPU")


def test_two_sessions_of_two_models_run_in_parallel_threads(export: Export, tmp_path: Path):

    models = []
    for name in ("a", "b"):
        Path(export(Mlp(), ((8, 16), np.float32))).rename(tmp_path / f"{name}.mindir")
        models.append(load_model(str(tmp_path / f"{name}.mindir"), with_batch_dim=True, device_type="CPU"))
    inputs = [float_inputs(model) for model in models]
    expected = [model.python_run(values) for model, values in zip(models, inputs, strict=True)]
    wrong: list[str] = []

    def work(index: int, session: Session) -> None:
        for _ in range(500):
            wrong.extend(filter(None, [difference(expected[index], session.run(inputs[index]))]))

    with open_session(models[0]) as first, open_session(models[1]) as second:
        threads = [threading.Thread(target=work, args=(i, s)) for i, s in enumerate((first, second))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert wrong == []
    assert not any(thread.is_alive() for thread in threads)
