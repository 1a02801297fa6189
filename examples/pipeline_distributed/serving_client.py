"""Calls the two_stages servable over gRPC and REST and compares every answer with the unsplit model."""

import json
import os
import urllib.request

import numpy as np

from mindspore_serving.client import Client

GRPC_ADDRESS = os.environ.get("SERVING_GRPC_ADDRESS", "127.0.0.1:5500")
REST_ADDRESS = os.environ.get("SERVING_REST_ADDRESS", "127.0.0.1:1500")
WEIGHTS = np.load(os.path.join(os.path.dirname(os.path.abspath(__file__)), "weights.npz"))


def unsplit(rows):
    scores = np.maximum(rows @ WEIGHTS["first"], 0) @ WEIGHTS["second"]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def call_with_numbers(count=100):
    rows = np.random.default_rng(2).normal(size=(count, WEIGHTS["first"].shape[0])).astype(np.float32)
    expected = unsplit(rows)
    answers = Client(GRPC_ADDRESS, "two_stages", "classify").infer([{"x": row} for row in rows])
    np.testing.assert_array_equal([answer["label"] for answer in answers], expected.argmax(axis=1))
    np.testing.assert_allclose([answer["probability"] for answer in answers], expected.max(axis=1), rtol=1e-3)
    print(f"gRPC classify: {count} instances, as the unsplit model")


def call_rest():
    body = json.dumps({"instances": [{"x": [1.0] * WEIGHTS["first"].shape[0]}]}).encode()
    url = f"http://{REST_ADDRESS}/model/two_stages:classify"
    with urllib.request.urlopen(urllib.request.Request(url, body)) as reply:
        (answer,) = json.load(reply)["instances"]
    assert answer["label"] == unsplit(np.ones((1, WEIGHTS["first"].shape[0]))).argmax(), answer
    print("REST classify:", answer)


if __name__ == "__main__":
    call_with_numbers()
    call_rest()
