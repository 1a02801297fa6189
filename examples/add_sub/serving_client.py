"""Calls both methods of the add_sub servable over gRPC, then one over REST, and checks every answer."""

import json
import os
import urllib.request

import numpy as np

from mindspore_serving.client import Client

GRPC_ADDRESS = os.environ.get("SERVING_GRPC_ADDRESS", "127.0.0.1:5500")
REST_ADDRESS = os.environ.get("SERVING_REST_ADDRESS", "127.0.0.1:1500")


def call_add_clip_sub(count=10):
    instances = [
        {"x1": np.full((2, 2), 20 * i), "x2": np.full((2, 2), i), "x3": np.arange(4).reshape(2, 2)}
        for i in range(count)
    ]
    answers = Client(GRPC_ADDRESS, "add_sub", "add_clip_sub").infer(instances)
    for instance, answer in zip(instances, answers, strict=True):
        expected = np.clip(instance["x1"] + instance["x2"], 0, 100) - instance["x3"]
        np.testing.assert_array_equal(answer["y"], expected.astype(np.float32))
    print(f"gRPC add_clip_sub: {count} instances, the last one gives {answers[-1]['y'].tolist()}")


def call_add_often():
    instance = {"x1": np.ones((2, 2), np.float32), "x2": np.array([[1, 2], [4, 3]], np.float32)}
    (answer,) = Client(GRPC_ADDRESS, "add_sub", "add_often").infer([instance])
    np.testing.assert_array_equal(answer["y"], [[4, 7], [13, 10]])
    assert answer["largest"] == 2, answer
    print("gRPC add_often:", answer["y"].tolist(), "largest at", int(answer["largest"]))


def call_rest():
    body = {"instances": [{"x1": [[1, 2], [3, 4]], "x2": [[5, 6], [7, 200]], "x3": [[1, 1], [1, 1]]}]}
    request = urllib.request.Request(f"http://{REST_ADDRESS}/model/add_sub:add_clip_sub", json.dumps(body).encode())
    with urllib.request.urlopen(request) as response:
        answer = json.load(response)
    assert answer == {"instances": [{"y": [[5.0, 7.0], [9.0, 99.0]]}]}, answer
    print("REST add_clip_sub:", answer)


if __name__ == "__main__":
    call_add_clip_sub()
    call_add_often()
    call_rest()
