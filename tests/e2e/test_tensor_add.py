"""examples/tensor_add as its users call it: right answers, and every error in the words they know."""

import base64
import json

import numpy as np
import pytest
import requests

from mindspore_serving.client import Client

TIMEOUT = 30


def ones(dtype=np.float32, shape=(2, 2)):
    return {"x1": np.ones(shape, dtype), "x2": np.full(shape, 2, dtype)}


def rest(server, body, path="/model/add:add_common"):
    data = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return requests.post(f"http://{server.rest_address}{path}", data=data, timeout=TIMEOUT)


# ---------------------------------------------------------------------------------------------- gRPC
def test_AnswersComeInTheOrderOfTheInstances(tensor_add, make_instances):
    instances = make_instances(50)
    answers = Client(tensor_add.grpc_address, "add", "add_common").infer(instances)
    assert len(answers) == 50
    for instance, answer in zip(instances, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], instance["x1"] + instance["x2"])
        assert answer["y"].dtype == np.float32


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint16, np.float16, np.float64])
def test_PreprocessCastsEveryNumberType(tensor_add, dtype):
    answers = Client(tensor_add.grpc_address, "add", "add_cast").infer([ones(dtype)])
    assert answers[0]["y"].dtype == np.float32
    np.testing.assert_array_equal(answers[0]["y"], np.full((2, 2), 3, np.float32))


def test_AsyncCallsAllAnswer(tensor_add, make_instances):
    client = Client(tensor_add.grpc_address, "add", "add_common")
    instances = make_instances(100)
    calls = [client.infer_async(instance) for instance in instances]
    for instance, call in zip(instances, calls, strict=True):
        np.testing.assert_array_equal(call.result()[0]["y"], instance["x1"] + instance["x2"])


def test_UnknownServable_IsNotAvailable(tensor_add):
    answer = Client(tensor_add.grpc_address, "nobody", "add_common").infer([ones()])
    assert "servable is not available" in answer["error"]


def test_UnknownVersion_IsNotAvailable(tensor_add):
    answer = Client(tensor_add.grpc_address, "add", "add_common", version_number=7).infer([ones()])
    assert "servable is not available" in answer["error"]


def test_UnknownMethod_IsNotAvailable(tensor_add):
    answer = Client(tensor_add.grpc_address, "add", "subtract").infer([ones()])
    assert "method is not available" in answer["error"]


def test_MissingInput_IsNamed(tensor_add):
    answer = Client(tensor_add.grpc_address, "add", "add_common").infer([ones(), {"x1": np.ones((2, 2), np.float32)}])
    assert "Cannot find input x2 in instance input" in answer["error"]


def test_UnknownExtraInput_IsIgnored(tensor_add):
    answer = Client(tensor_add.grpc_address, "add", "add_common").infer([{**ones(), "x3": np.ones(5)}])
    np.testing.assert_array_equal(answer[0]["y"], np.full((2, 2), 3))


def test_WrongSize_FailsThatInstanceAlone(tensor_add):
    answers = Client(tensor_add.grpc_address, "add", "add_common").infer([ones(), ones(shape=(3, 3)), ones()])
    assert "size" in answers[1]["error"] and "36" in answers[1]["error"]
    for good in (answers[0], answers[2]):
        np.testing.assert_array_equal(good["y"], np.full((2, 2), 3))


def test_WrongType_FailsThatInstanceAlone(tensor_add):
    answers = Client(tensor_add.grpc_address, "add", "add_common").infer([ones(np.int32), ones()])
    assert "kMSI_Int32" in answers[0]["error"]
    np.testing.assert_array_equal(answers[1]["y"], np.full((2, 2), 3))


def test_SameSizeInAnotherShape_IsTakenAsReshape(tensor_add):
    answers = Client(tensor_add.grpc_address, "add", "add_common").infer([ones(shape=(4,))])
    assert answers[0]["y"].tolist() == [[3, 3], [3, 3]]


def test_NoInstances_IsAnError(tensor_add):
    answer = Client(tensor_add.grpc_address, "add", "add_common").infer([])
    assert answer["error"]


def test_ServerThatIsNotThere_IsAGrpcError(tensor_add):
    answer = Client("127.0.0.1:1", "add", "add_common").infer([ones()])
    assert "(14, 'unavailable')" in answer["error"]


# ---------------------------------------------------------------------------------------------- REST
@pytest.mark.parametrize(
    "path",
    ["/model/add:add_common", "/model/add/version/1:add_common", "/version/1/model/add:add_common",
     "/model/add/version/0:add_common"],
)  # fmt: skip
def test_RestAnswersOnEveryPath(tensor_add, path):
    body = {"instances": [{"x1": [[1.5, 2.5], [3.5, 4.5]], "x2": [[1.0, 1.0], [2.0, 2.0]]}]}
    answer = rest(tensor_add, body, path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json() == {"instances": [{"y": [[2.5, 3.5], [5.5, 6.5]]}]}


def test_RestTakesOneInstanceWithoutAList(tensor_add):
    answer = rest(tensor_add, {"instances": {"x1": [[1.0, 2.0], [3.0, 4.0]], "x2": [[1.0, 1.0], [1.0, 1.0]]}})
    assert answer.json() == {"instances": [{"y": [[2.0, 3.0], [4.0, 5.0]]}]}


def test_RestTakesBase64Tensors(tensor_add):
    raw = np.array([[1, 2], [3, 4]], np.float32)
    value = {"b64": base64.b64encode(raw.tobytes()).decode(), "type": "fp32", "shape": [2, 2]}
    answer = rest(tensor_add, {"instances": [{"x1": value, "x2": value}]})
    assert answer.json() == {"instances": [{"y": (raw * 2).tolist()}]}


def test_RestFloatsAreShortestRoundTrip(tensor_add):
    zero = [[0.0, 0.0], [0.0, 0.0]]
    answer = rest(tensor_add, {"instances": [{"x1": [[1.1, 0.1], [3.4e38, 1e-7]], "x2": zero}]})
    got = np.array(answer.json()["instances"][0]["y"], np.float32)
    np.testing.assert_array_equal(got, np.array([[1.1, 0.1], [3.4e38, 1e-7]], np.float32))
    assert "1.10000002" not in answer.text


def test_RestPartFailure_Is200WithTheErrorInItsPlace(tensor_add):
    good = {"x1": [[1.0, 1.0], [1.0, 1.0]], "x2": [[1.0, 1.0], [1.0, 1.0]]}
    bad = {"x1": [1.0], "x2": [1.0]}
    answer = rest(tensor_add, {"instances": [good, bad, good]})
    assert answer.status_code == 200
    first, second, third = answer.json()["instances"]
    assert first == third == {"y": [[2.0, 2.0], [2.0, 2.0]]}
    assert "size" in second["error_msg"]


@pytest.mark.parametrize(
    ("path", "body", "status", "token"),
    [
        ("/model/nobody:add_common", {"instances": [{"x1": 1.0}]}, 404, "servable is not available"),
        ("/model/add:subtract", {"instances": [{"x1": 1.0}]}, 404, "method is not available"),
        ("/model/add/version/9:add_common", {"instances": [{"x1": 1.0}]}, 404, "servable is not available"),
        ("/model/add:add_common", "{", 400, ""),
        ("/model/add:add_common", "", 400, ""),
        ("/model/add:add_common", {"instances": []}, 400, "Parser request failed"),
        ("/model/add:add_common", {"nothing": 1}, 400, "instances"),
        ("/model/add:add_common", {"instances": [{"x1": [1, 2.5]}]}, 400, "elements type is not equal"),
        ("/model/add:add_common", {"instances": [{"x1": {"b64": "$$$$"}}]}, 400, ""),
        ("/model/add:add_common", {"instances": [{"x1": 1.0}]}, 400, "Cannot find input x2 in instance input"),
    ],
)
def test_RestErrorsCarryStatusAndText(tensor_add, path, body, status, token):
    answer = rest(tensor_add, body, path)
    assert answer.status_code == status, answer.text
    assert token in answer.json()["error_msg"]


@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE"])
def test_RestKnowsPostOnly(tensor_add, verb):
    answer = requests.request(verb, f"http://{tensor_add.rest_address}/model/add:add_common", timeout=TIMEOUT)
    assert answer.status_code == 405
    assert "POST" in answer.json()["error_msg"]
