"""What goes into and comes out of Python stages, from the client's side: every type, every result, every failure."""

import base64
import json

import grpc
import numpy as np
import pytest
import requests

from mindspore_serving.client import Client
from mindspore_serving.proto import ms_service_pb2, ms_service_pb2_grpc
from servables import make_script, make_servable
from servers import ServerProcess

CONFIG = """
import os
import threading

import numpy as np
from mindspore_serving.server import register


def tell(x):
    if isinstance(x, str):
        return f"str {x}"
    return f"{type(x).__name__} {x.dtype} {list(x.shape)} {'writable' if x.flags.writeable else 'read-only'}"


@register.register_method(output_names=["told", "x"])
def look(x):
    told = register.call_preprocess(tell, x)
    return told, x


def tensor():
    import mindspore

    return mindspore.Tensor(np.arange(4, dtype=np.float32).reshape(2, 2))


def out_of_range():
    raise IndexError("no such row")


MADE = {
    "bytes": lambda: b"\\x00\\xff",
    "str": lambda: "Grüße",
    "bool": lambda: True,
    "int": lambda: 7,
    "float": lambda: 1.5,
    "numpy float16": lambda: np.float16(1.5),
    "numpy bool": lambda: np.bool_(False),
    "array": lambda: np.arange(6, dtype=np.uint16).reshape(2, 3),
    "nested lists": lambda: ([[1, 2], [3, 4]],),
    "nested lists of float": lambda: ([[1.0], [2.0]],),
    "one in a tuple": lambda: (np.int8(3),),
    "one in a list": lambda: [np.int8(3)],
    "fortran": lambda: np.asfortranarray(np.arange(6).reshape(2, 3)),
    "transposed": lambda: np.arange(6).reshape(2, 3).T,
    "strided": lambda: np.arange(10, dtype=np.float32)[::3],
    "negative stride": lambda: np.arange(4, dtype=np.int16)[::-1],
    "big endian": lambda: np.arange(3, dtype=">f8"),
    "no last dimension": lambda: np.zeros((2, 0), np.float32),
    "tensor": tensor,
    "none": lambda: None,
    "object": lambda: np.array([None]),
    "complex": lambda: np.ones(2, np.complex64),
    "array of str": lambda: np.array(["a", "b"]),
    "dtype": lambda: np.dtype("f4"),
    "two": lambda: (1, 2),
    "list of two": lambda: [1, 2],
    "nothing": lambda: (),
    "raises": out_of_range,
}


def make(kind):
    return MADE[kind]()


@register.register_method(output_names=["y"])
def made(kind):
    return register.call_preprocess(make, kind)


@register.register_method(output_names=["y"])
def made_after(kind):
    return register.call_postprocess(make, kind)


def one_of_two(x):
    return x


@register.register_method(output_names=["a", "b"])
def one_too_few(x):
    a, b = register.call_preprocess(one_of_two, x)
    return a, b


def add_one(x):
    x += 1
    return 0


def total(x):
    return x.sum()


@register.register_method(output_names=["x", "total"])
def in_place(x):
    zero = register.call_preprocess(add_one, x)
    t = register.call_postprocess(total, x)
    return x, t


@register.register_method(output_names=["place"])
def largest(x):
    return register.call_postprocess("argmax_cpp", x)


def check(x):
    if x == 13:
        raise ValueError("thirteen")
    return x * 2


def by_yield(instances):
    assert isinstance(instances, tuple) and all(isinstance(one, tuple) for one in instances)
    for (x,) in instances:
        yield check(x)


def by_list(instances):
    return [check(x) for (x,) in instances]


def by_map(instances):
    return map(lambda one: check(one[0]), instances)


def too_few(instances):
    for (x,) in instances[:2]:
        yield x


def too_many(instances):
    for (x,) in instances:
        yield x
    yield 1
    yield 2


def no_iterable(instances):
    return 5


@register.register_method("y")
def yielded(x):
    return register.call_preprocess_pipeline(by_yield, x)


@register.register_method("y")
def listed(x):
    return register.call_postprocess_pipeline(by_list, x)


@register.register_method("y")
def mapped(x):
    return register.call_preprocess_pipeline(by_map, x)


@register.register_method("y")
def short(x):
    return register.call_preprocess_pipeline(too_few, x)


@register.register_method("y")
def long(x):
    return register.call_postprocess_pipeline(too_many, x)


@register.register_method("y")
def single(x):
    return register.call_postprocess_pipeline(no_iterable, x)


def place(x):
    return f"device {os.environ['SERVING_DEVICE_ID']} thread {threading.get_ident()}"


@register.register_method("place")
def where(x):
    return register.call_preprocess(place, x)


# Two functions of one name in two methods: each method keeps its own.
def twin(x):
    return x + 1


@register.register_method("y")
def first_twin(x):
    return register.call_preprocess(twin, x)


def twin(x):
    return x + 2, x


@register.register_method(["y", "x"])
def second_twin(x):
    y, x = register.call_preprocess(twin, x)
    return y, x
"""


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    folder = tmp_path_factory.mktemp("values")
    make_servable(folder, "values", CONFIG, {})
    with ServerProcess(make_script(folder, ['"values"'])) as server:
        yield server


def call(server, method, *instances):
    answers = Client(server.grpc_address, "values", method).infer(list(instances))
    return answers[0] if isinstance(answers, list) and len(instances) == 1 else answers


def post(server, method, body):
    return requests.post(f"http://{server.rest_address}/model/values:{method}", data=json.dumps(body), timeout=30)


# ---------------------------------------------------------------------------------------------- arguments
DTYPES = "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64".split()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (2, 0), (100, 200)])
def test_AFunctionGetsAWritableArrayOfTheClientsTypeAndShape(values, dtype, shape):
    x = (np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape).astype(dtype)
    answer = call(values, "look", {"x": x})
    assert answer["told"] == f"ndarray {dtype} {list(shape)} writable"
    assert (answer["x"].dtype, answer["x"].shape) == (x.dtype, x.shape)
    np.testing.assert_array_equal(answer["x"], x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_RestCarriesEveryType(values, dtype):
    x = np.array([[0, 1], [1, 1]]).astype(dtype)
    value = {"b64": base64.b64encode(x.tobytes()).decode(), "type": dtype, "shape": [2, 2]}
    answer = post(values, "look", {"instances": {"x": value}}).json()["instances"][0]
    assert answer == {"told": f"ndarray {dtype} [2, 2] writable", "x": x.tolist()}


def test_TextIsStrAndBytesAreAnArrayOfUint8(values):
    assert call(values, "look", {"x": "Grüße"}) == {"told": "str Grüße", "x": "Grüße"}
    answer = call(values, "look", {"x": b"\x00\xff!"})
    assert answer == {"told": "ndarray uint8 [3] writable", "x": b"\x00\xff!"}
    reply = post(values, "look", {"instances": [{"x": "Grüße"}, {"x": {"b64": "AP8h"}}]})
    assert reply.json()["instances"] == [
        {"told": "str Grüße", "x": "Grüße"},
        {"told": "ndarray uint8 [3] writable", "x": {"b64": "AP8h"}},
    ]


@pytest.mark.parametrize("size", [1, 5, 100_000])
def test_AChangeInPlaceIsSeenByLaterStagesAndTheReply(values, size):
    x = np.arange(size, dtype=np.float64)
    answer = call(values, "in_place", {"x": x})
    np.testing.assert_array_equal(answer["x"], x + 1)
    assert answer["total"] == (x + 1).sum()


# ---------------------------------------------------------------------------------------------- results
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("bool", np.array(True)),
        ("int", np.array(7, np.int64)),
        ("float", np.array(1.5, np.float64)),
        ("numpy float16", np.array(1.5, np.float16)),
        ("numpy bool", np.array(False)),
        ("array", np.arange(6, dtype=np.uint16).reshape(2, 3)),
        ("nested lists", np.array([[1, 2], [3, 4]], np.int64)),
        ("nested lists of float", np.array([[1], [2]], np.float64)),
        ("one in a tuple", np.array(3, np.int8)),
        ("one in a list", np.array(3, np.int8)),
        ("fortran", np.arange(6).reshape(2, 3)),
        ("transposed", np.arange(6).reshape(2, 3).T),
        ("strided", np.arange(10, dtype=np.float32)[::3]),
        ("negative stride", np.arange(4, dtype=np.int16)[::-1]),
        ("big endian", np.arange(3, dtype=np.float64)),
        ("no last dimension", np.zeros((2, 0), np.float32)),
        ("tensor", np.arange(4, dtype=np.float32).reshape(2, 2)),
    ],
)
@pytest.mark.parametrize("method", ["made", "made_after"])
def test_EveryResultIsSent(values, method, kind, expected):
    answer = call(values, method, {"kind": kind})
    assert (answer["y"].dtype, answer["y"].shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(answer["y"], expected)


def test_TextAndBytesAreSentAsTheyAre(values):
    assert call(values, "made", {"kind": "str"}, {"kind": "bytes"}) == [{"y": "Grüße"}, {"y": b"\x00\xff"}]


UNFIT = {
    "none": "an output is None",
    "object": "dtype object, which cannot be sent",
    "complex": "dtype complex64, which cannot be sent",
    "array of str": "dtype <U1, which cannot be sent",
    "dtype": "dtype object, which cannot be sent",
    "two": "it returned 2 output(s), but the method takes 1",
    "list of two": "a list counts as several outputs",
    "nothing": "it returned 0 output(s), but the method takes 1",
    "raises": "IndexError: no such row",
}


@pytest.mark.parametrize("kind", UNFIT)
@pytest.mark.parametrize(("method", "head"), [("made", "Preprocess Failed: "), ("made_after", "Postprocess Failed: ")])
def test_WhatCannotBeSent_FailsItsInstanceAndNotTheWorker(values, method, head, kind):
    workers = values.worker_pids()
    first, failed, last = call(values, method, {"kind": "int"}, {"kind": kind}, {"kind": "int"})
    assert failed["error"].startswith(head) and UNFIT[kind] in failed["error"]
    assert "servable_config.py:" in failed["error"]
    assert first == last == {"y": 7}
    assert values.worker_pids() == workers


def test_TooFewOutputs_FailTheInstance(values):
    assert "it returned 1 output (a ndarray), but the method takes 2" in call(values, "one_too_few", {"x": 1})["error"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_ArgmaxIsOfAllElements(values, dtype):
    x = np.zeros((2, 3), dtype)
    x[1, 1] = 1
    answer = call(values, "largest", {"x": x})
    assert (answer["place"].dtype, answer["place"].shape, int(answer["place"])) == (np.int64, (), 4)


@pytest.mark.parametrize(("x", "why"), [("text", "cannot take kMSI_String"), (np.zeros((1, 0)), "of an empty tensor")])
def test_ArgmaxOfWhatHasNoLargestElement_FailsTheInstance(values, x, why):
    good, bad = call(values, "largest", {"x": np.int32([1, 2])}, {"x": x})
    assert good == {"place": 1}
    assert bad["error"].startswith("Postprocess Failed: ") and why in bad["error"]


# ---------------------------------------------------------------------------------------------- many instances at once
@pytest.mark.parametrize("method", ["yielded", "listed", "mapped"])
def test_WhateverIsIteratedOver_AndWhatRaisesFailsAlone(values, method):
    answers = call(values, method, *({"x": np.int32(i)} for i in (1, 13, 3, 13, 5)))
    assert [int(answers[i]["y"]) for i in (0, 2, 4)] == [2, 6, 10]
    head = "Postprocess" if method == "listed" else "Preprocess"
    for i in (1, 3):
        assert answers[i]["error"].startswith(f"{head} Failed: ValueError: thirteen (values/servable_config.py:")


def test_TooFewResults_FailTheRest_AndTooManyAreIgnored(values):
    answers = call(values, "short", *({"x": np.int32(i)} for i in range(4)))
    assert [int(answer["y"]) for answer in answers[:2]] == [0, 1]
    for answer in answers[2:]:
        assert answer["error"].startswith("Preprocess Failed: it gave 2 result(s) for 4 instances")
    assert call(values, "long", *({"x": np.int32(i)} for i in range(3))) == [{"y": 0}, {"y": 1}, {"y": 2}]


def test_AResultThatIsNoIterable_FailsItsInstances(values):
    assert "it returned a int; it should yield" in call(values, "single", {"x": 1}, {"x": 2})["error"]


def test_TwoFunctionsOfOneName_AreTwoFunctions(values):
    assert call(values, "first_twin", {"x": np.int32(1)}) == {"y": 2}
    assert call(values, "second_twin", {"x": np.int32(1)}) == {"y": 3, "x": 1}


# ---------------------------------------------------------------------------------------------- where functions run
def test_FunctionsRunInOneThreadOfAWorkerThatKnowsItsDevice(values):
    client = Client(values.grpc_address, "values", "where")
    calls = [client.infer_async([{"x": i}, {"x": i}]) for i in range(50)]
    (place,) = {answer["place"] for one in calls for answer in one.result()}
    assert place.startswith("device 0 thread ")


# ---------------------------------------------------------------------------------------------- error codes
def ask_raw(server, servable, method, *names):
    """The reply's (code, text) pairs for instances with one input each, called as told."""
    request = ms_service_pb2.PredictRequest(
        servable_spec=ms_service_pb2.ServableSpec(name=servable, method_name=method)
    )
    for name, kind in names:
        tensor = ms_service_pb2.Tensor(dtype=ms_service_pb2.MS_STRING, bytes_val=[kind.encode()])
        request.instances.add().items[name].CopyFrom(tensor)
    with grpc.insecure_channel(server.grpc_address) as channel:
        reply = ms_service_pb2_grpc.MSServiceStub(channel).Predict(request, timeout=30)
    return [(error.error_code, error.error_msg.decode()) for error in reply.error_msg]


def test_CodesAreThoseOfTheDocumentation(values):
    (one,) = ask_raw(values, "nobody", "made", ("kind", "int"))
    assert one[0] == 5 and one[1].startswith("servable is not available")
    (one,) = ask_raw(values, "values", "nothing", ("kind", "int"))
    assert one[0] == 2 and one[1].startswith("method is not available")
    (one,) = ask_raw(values, "values", "made", ("color", "int"))
    assert one[0] == 2 and one[1].startswith("Cannot find input kind in instance input")
    (one,) = ask_raw(values, "values", "made")
    assert one[0] == 2 and "no instances" in one[1]
    good, bad = ask_raw(values, "values", "made", ("kind", "int"), ("kind", "raises"))
    assert good == (0, "")
    assert bad[0] == 2 and bad[1].startswith("Preprocess Failed")
