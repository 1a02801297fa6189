"""Calls both methods of the add servable over gRPC, then one over REST, and checks every answer."""

import json
import os
import urllib.request

import numpy as np

from mindspore_serving.client import Client

GRPC_ADDRESS = os.environ.get("SERVING_GRPC_ADDRESS", "127.0.0.1:5500")
REST_ADDRESS = os.environ.get("SERVING_REST_ADDRESS", "127.0.0.1:1500")


def make_instances(dtype, count=3):
    """`count` instances; number i adds a matrix of i+1 to a matrix of 10*(i+1)."""
    return [{"x1": np.full((2, 2), i + 1, dtype), "x2": np.full((2, 2), 10 * (i + 1), dtype)} for i in range(count)]


def call_grpc(method, dtype):
    instances = make_instances(dtype)
    answers = Client(GRPC_ADDRESS, "add", method).infer(instances)
    for instance, answer in zip(instances, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], (instance["x1"] + instance["x2"]).astype(np.float32))
    print(f"gRPC {method}, {np.dtype(dtype).name}: y = {[answer['y'].tolist() for answer in answers]}")


def call_rest():
    body = {"instances": [{"x1": [[1.5, 2.5], [3.5, 4.5]], "x2": [[1.0, 1.0], [2.0, 2.0]]}]}
    request = urllib.request.Request(f"http://{REST_ADDRESS}/model/add:add_common", json.dumps(body).encode())
    with urllib.request.urlopen(request) as response:
        answer = json.load(response)
    assert answer == {"instances": [{"y": [[2.5, 3.5], [5.5, 6.5]]}]}, answer
    print("REST add_common:", answer)


if __name__ == "__main__":
    call_grpc("add_common", np.float32)
    call_grpc("add_cast", np.int32)
    call_rest()
