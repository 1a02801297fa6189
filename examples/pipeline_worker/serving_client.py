"""Calls both pipelines of the root servable over gRPC, then one over REST, and checks every answer."""

import json
import os
import urllib.request

import numpy as np

from mindspore_serving.client import Client

GRPC_ADDRESS = os.environ.get("SERVING_GRPC_ADDRESS", "127.0.0.1:5500")
REST_ADDRESS = os.environ.get("SERVING_REST_ADDRESS", "127.0.0.1:1500")


def call_predict():
    vectors = [np.array([1, 4, 9, 16], np.float32) * 10**i for i in range(3)]
    answers = Client(GRPC_ADDRESS, "root", "predict").infer([{"x": vector} for vector in vectors])
    for vector, answer in zip(vectors, answers, strict=True):
        np.testing.assert_allclose(answer["y"], np.sqrt(vector), rtol=1e-4)
    rounds = [int(answer["rounds"]) for answer in answers]
    assert rounds == sorted(rounds) and rounds[0] < rounds[-1], "larger numbers need more rounds"
    print(f"gRPC predict: rounds = {rounds}")


def call_predict_with_a_bad_instance():
    good, bad = np.array([1, 2, 3, 4], np.float32), np.array([1, 2, -3, 4], np.float32)
    answers = Client(GRPC_ADDRESS, "root", "predict").infer([{"x": good}, {"x": bad}, {"x": good}])
    assert "y" in answers[0] and "y" in answers[2]
    print(f"gRPC predict, a bad instance: {answers[1]['error']}")


def call_predict_test():
    matrix = np.arange(1, 81, dtype=np.float32).reshape(20, 4)
    (answer,) = Client(GRPC_ADDRESS, "root", "predict_test").infer({"x": matrix})
    np.testing.assert_allclose(answer["y"], np.sqrt(matrix), rtol=1e-4)
    print(f"gRPC predict_test: {answer['y'].shape[0]} rows, worst error below 0.001: {answer['worst'] < 1e-3}")


def call_rest():
    body = {"instances": [{"x": [1.0, 4.0, 9.0, 16.0]}]}
    request = urllib.request.Request(f"http://{REST_ADDRESS}/model/root:predict", json.dumps(body).encode())
    with urllib.request.urlopen(request) as response:
        (answer,) = json.load(response)["instances"]
    np.testing.assert_allclose(answer["y"], [1, 2, 3, 4], rtol=1e-4)
    print("REST predict: y =", [round(value, 3) for value in answer["y"]])


if __name__ == "__main__":
    call_predict()
    call_predict_with_a_bad_instance()
    call_predict_test()
    call_rest()
