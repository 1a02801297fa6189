"""Calls the matmul servable over gRPC and REST and compares every answer with the unsplit model."""

import json
import os
import urllib.request

import numpy as np

from mindspore_serving.client import Client

GRPC_ADDRESS = os.environ.get("SERVING_GRPC_ADDRESS", "127.0.0.1:5500")
REST_ADDRESS = os.environ.get("SERVING_REST_ADDRESS", "127.0.0.1:1500")
WEIGHT = np.load(os.path.join(os.path.dirname(os.path.abspath(__file__)), "weight.npy"))


def call_with_numbers(count=100):
    rows = np.random.default_rng(2).normal(size=(count, WEIGHT.shape[0])).astype(np.float32)
    answers = Client(GRPC_ADDRESS, "matmul", "predict").infer([{"x": row} for row in rows])
    np.testing.assert_allclose([answer["y"] for answer in answers], rows @ WEIGHT, rtol=1e-4, atol=1e-4)
    print(f"gRPC predict: {count} instances, as the unsplit model")


def call_rest():
    row = np.arange(WEIGHT.shape[0]) % 5
    body = json.dumps({"instances": [{"x": row.tolist()}]}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"http://{REST_ADDRESS}/model/matmul:predict", body)) as reply:
        (answer,) = json.load(reply)["instances"]
    np.testing.assert_allclose(answer["y"], row @ WEIGHT, rtol=1e-4, atol=1e-4)
    print("REST predict: as the unsplit model")


if __name__ == "__main__":
    call_with_numbers()
    call_rest()
