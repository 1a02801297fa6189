"""Many clients at once, over gRPC and REST, of every kind: each gets its own answer."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import requests

from mindspore_serving.client import Client

CLIENTS = 12


def check(instance, answer, checked):
    expected = (instance["x1"] + instance["x2"]).astype(np.float32)
    np.testing.assert_array_equal(answer["y"], expected)
    if checked:
        assert answer["total"] == expected.sum()


def over_grpc(server, servable, method, instances):
    return Client(server.grpc_address, servable, method).infer(instances)


def over_grpc_async(server, servable, method, instances):
    return Client(server.grpc_address, servable, method).infer_async(instances).result()


def over_rest(server, servable, method, instances):
    body = {"instances": [{name: value.tolist() for name, value in one.items()} for one in instances]}
    url = f"http://{server.rest_address}/model/{servable}:{method}"
    answer = requests.post(url, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["instances"]


def run_client(server, number, deadline, failed):
    """One client until the deadline; returns how many instances it had answered."""
    random = np.random.default_rng(number)
    answered = 0
    while time.monotonic() < deadline and not failed.is_set():
        servable = random.choice(["plain", "batched"])
        method = random.choice(["add", "add_checked"])
        call = (over_grpc, over_grpc_async, over_rest)[random.integers(3)]
        count = int(random.integers(1, 12))
        # Whole numbers, sent as float32 (REST: reals), that no other client adds up to.
        instances = [
            {name: random.integers(0, 2**20, (2, 2)).astype(np.float32) for name in ("x1", "x2")} for _ in range(count)
        ]
        try:
            answers = call(server, servable, method, instances)
            assert len(answers) == count
            for instance, answer in zip(instances, answers, strict=True):
                check(instance, answer, method == "add_checked")
        except BaseException:
            failed.set()
            raise
        answered += count
    return answered


@pytest.mark.parametrize("clients", [CLIENTS])
def test_EveryClientGetsItsOwnAnswers(adders, long_run, clients):
    deadline = time.monotonic() + (60 if long_run else 6)
    failed = threading.Event()
    with ThreadPoolExecutor(clients) as pool:
        runs = [pool.submit(run_client, adders, number, deadline, failed) for number in range(clients)]
    answered = [run.result() for run in runs]
    assert all(count > 0 for count in answered)
    assert sum(answered) > 100
