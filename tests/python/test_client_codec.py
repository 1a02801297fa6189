"""The client's own codec against protobuf's objects: the same messages, the same values."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from mindspore_serving.client import _client, _codec
from mindspore_serving.client._tensors import fill_tensor, value_of
from mindspore_serving.proto import ms_service_pb2 as pb

DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32"]


def random_value(rng):
    kind = rng.integers(8)
    if kind == 0:
        return "grün" * int(rng.integers(3))
    if kind == 1:
        return rng.bytes(int(rng.integers(5)))
    if kind == 2:
        return bool(rng.integers(2))
    if kind == 3:
        return int(rng.integers(-(2**62), 2**62))
    if kind == 4:
        return float(rng.normal())
    shape = tuple(int(n) for n in rng.integers(1, 5, rng.integers(0, 4)))
    array = rng.integers(0, 2, shape).astype(rng.choice([*DTYPES, "float64"]))
    if kind == 5:
        return array.T
    if kind == 6 and array.ndim:
        return array[::2]
    return array.astype(array.dtype.newbyteorder(">")) if kind == 7 else array


def random_instances(rng):
    return [
        {f"input {i}" * int(rng.integers(1, 3)): random_value(rng) for i in range(rng.integers(4))}
        for _ in range(rng.integers(5))
    ]


def by_protobuf(instances, version):
    request = pb.PredictRequest()
    request.servable_spec.name = "servable"
    request.servable_spec.method_name = "method"
    request.servable_spec.version_number = version
    for instance in instances:
        items = request.instances.add().items
        for name, value in instance.items():
            fill_tensor(name, value, items[name])
            if not items[name].shape.dims:
                items[name].ClearField("shape")  # an empty shape and none are the same scalar
    return request


@pytest.mark.parametrize("seed", range(200))
def test_requests_are_those_of_protobuf(seed):
    rng = np.random.default_rng(seed)
    instances = random_instances(rng)
    version = int(rng.choice([0, 1, 300, 2**63]))
    message = _codec.encode(instances, "servable", "method", version)
    assert message is not None
    assert pb.PredictRequest.FromString(message) == by_protobuf(instances, version)


@pytest.mark.parametrize("seed", range(200))
def test_replies_are_read_as_protobuf_reads_them(seed):
    rng = np.random.default_rng(seed)
    request = by_protobuf(random_instances(rng), 1)
    reply = pb.PredictReply(servable_spec=request.servable_spec, instances=request.instances)
    if rng.integers(2):
        for _ in reply.instances:
            reply.error_msg.add(error_code=int(rng.integers(2)), error_msg=b"broken \xff")
    if not reply.instances:
        del reply.error_msg[:]
    results = _codec.decode(reply.SerializeToString())
    assert results is not None
    for index, (result, instance) in enumerate(zip(results, reply.instances, strict=True)):
        if reply.error_msg and reply.error_msg[index].error_code:
            assert result == {"error": "broken \ufffd"}
            continue
        assert set(result) == set(instance.items)
        for name, tensor in instance.items.items():
            expected = value_of(name, tensor)
            assert type(result[name]) is type(expected)
            if isinstance(expected, np.ndarray):
                assert result[name].dtype == expected.dtype
                assert result[name].shape == expected.shape
                assert not result[name].flags.writeable
            np.testing.assert_array_equal(result[name], expected)


@pytest.mark.parametrize(
    "instances",
    [[1], [{1: 1}], [{"x": None}], [{"x": 2**63}], [{"x": np.array(["a"])}], [{"x": np.zeros((1,) * 9)}]],
    ids=["no dict", "name no str", "None", "needs uint64", "array of text", "nine dimensions"],
)
def test_what_is_unusual_is_left_to_the_caller(instances):
    assert _codec.encode(instances, "servable", "method", 0) is None


def test_names_may_be_of_a_class_made_from_str():
    message = _codec.encode([{np.str_("x"): np.str_("text")}], np.str_("servable"), np.str_("method"), 0)
    request = pb.PredictRequest.FromString(message)
    assert (request.servable_spec.name, request.servable_spec.method_name) == ("servable", "method")
    assert request.instances[0].items["x"].bytes_val == [b"text"]


@pytest.mark.parametrize("message", [b"\x1a\x7f", b"\xff" * 20, b"\x0a"])
def test_bytes_that_are_no_reply(message):
    assert _codec.decode(message) is None
    with pytest.raises(RuntimeError, match="not a PredictReply message"):
        _client._parse_reply(message)


@pytest.mark.parametrize("shift", range(8))
def test_large_outputs_live_as_long_as_they_are_used(shift):
    array = np.arange(100_000, dtype=np.float64)
    reply = pb.PredictReply()
    reply.servable_spec.name = "n" * shift  # moves the data to every alignment
    fill_tensor("y", array, reply.instances.add().items["y"])
    message = reply.SerializeToString()
    (result,) = _codec.decode(message)
    del message, reply
    gc.collect()
    assert result["y"].flags.aligned
    np.testing.assert_array_equal(result["y"], array)


def test_fortran_order_and_empty_arrays():
    for array in (
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((3, 0), np.int8),
        np.zeros((0,), np.float32),
    ):
        message = _codec.encode([{"x": array}], "servable", "method", 0)
        assert pb.PredictRequest.FromString(message) == by_protobuf([{"x": array}], 0)
