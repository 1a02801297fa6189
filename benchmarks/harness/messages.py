"""Requests as bytes, and one checked call before any load."""

import json
import struct
import urllib.request

import grpc
import numpy as np

from mindspore_serving.proto import ms_service_pb2 as pb

GRPC_PATH = "/mindspore.serving.proto.MSService/Predict"
_LIMITS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
_DTYPES = {
    np.dtype(np.float32): pb.MS_FLOAT32,
    np.dtype(np.int32): pb.MS_INT32,
    np.dtype(np.int64): pb.MS_INT64,
    np.dtype(np.uint8): pb.MS_UINT8,
}
_KINDS = {number: dtype for dtype, number in _DTYPES.items()}

Instance = dict[str, np.ndarray]


def grpc_body(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def predict_message(servable: str, method: str, instances: list[Instance]) -> bytes:
    request = pb.PredictRequest()
    request.servable_spec.name = servable
    request.servable_spec.method_name = method
    for instance in instances:
        items = request.instances.add().items
        for name, value in instance.items():
            items[name].dtype = _DTYPES[value.dtype]
            items[name].shape.dims.extend(value.shape)
            items[name].data = value.tobytes()
    return request.SerializeToString()


def rest_body(instances: list[Instance]) -> bytes:
    listed = [{name: value.tolist() for name, value in instance.items()} for instance in instances]
    return json.dumps({"instances": listed}).encode()


def call_grpc(address: str, path: str, message: bytes) -> bytes:
    with grpc.insecure_channel(address, options=_LIMITS) as channel:
        return channel.unary_unary(path)(message, timeout=60)


def reply_instances(message: bytes) -> list[Instance]:
    """The instances of a PredictReply; an error in it raises."""
    reply = pb.PredictReply.FromString(message)
    if reply.error_msg:
        raise RuntimeError(f"the server answered {reply.error_msg[0].error_msg.decode()}")
    return [
        {
            name: np.frombuffer(tensor.data, _KINDS[tensor.dtype]).reshape(tensor.shape.dims)
            for name, tensor in one.items.items()
        }
        for one in reply.instances
    ]


def checked_grpc(address: str, message: bytes, expected: list[Instance], tolerance: float = 1e-5) -> int:
    """Calls Predict once, compares every output, and returns the reply's length as an HTTP body."""
    raw = call_grpc(address, GRPC_PATH, message)
    instances = reply_instances(raw)
    assert len(instances) == len(expected), f"{len(instances)} instances came back, not {len(expected)}"
    for got, wanted in zip(instances, expected, strict=True):
        for name, value in wanted.items():
            np.testing.assert_allclose(got[name], value, rtol=tolerance, atol=tolerance)
    return len(grpc_body(raw))


def call_rest(address: str, path: str, body: bytes) -> bytes:
    request = urllib.request.Request(f"http://{address}{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read()


def checked_rest(address: str, path: str, body: bytes, expected: list[Instance], tolerance: float = 1e-5) -> int:
    raw = call_rest(address, path, body)
    answers = json.loads(raw)["instances"]
    assert len(answers) == len(expected), f"{len(answers)} instances came back, not {len(expected)}"
    for got, wanted in zip(answers, expected, strict=True):
        for name, value in wanted.items():
            np.testing.assert_allclose(np.asarray(got[name]), value, rtol=tolerance, atol=tolerance)
    return len(raw)
