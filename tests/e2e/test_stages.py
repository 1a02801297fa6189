"""Python stages around a model, with and without a batch dimension."""

import numpy as np
import pytest

from mindspore_serving.client import Client

servables = pytest.mark.parametrize("servable", ["plain", "batched"])


@servables
@pytest.mark.parametrize("count", [1, 3, 4, 5, 33])
def test_AnyNumberOfInstancesIsAnswered(adders, make_instances, servable, count):
    instances = make_instances(count, np.int32, seed=count)
    answers = Client(adders.grpc_address, servable, "add_checked").infer(instances)
    assert len(answers) == count
    for instance, answer in zip(instances, answers, strict=True):
        expected = (instance["x1"] + instance["x2"]).astype(np.float32)
        np.testing.assert_array_equal(answer["y"], expected)
        assert answer["total"] == expected.sum()


@servables
def test_FailingPreprocess_FailsItsInstanceAlone(adders, make_instances, servable):
    instances = make_instances(9, np.int32)
    instances[4]["x1"] = np.full((2, 2), -1, np.int32)
    answers = Client(adders.grpc_address, servable, "add_checked").infer(instances)
    assert "Preprocess Failed" in answers[4]["error"]
    for number in (0, 1, 2, 3, 5, 6, 7, 8):
        np.testing.assert_array_equal(answers[number]["y"], instances[number]["x1"] + instances[number]["x2"])


@servables
def test_FailureOfEveryInstance_IsOneError(adders, servable):
    bad = {"x1": np.full((2, 2), -1, np.int32), "x2": np.zeros((2, 2), np.int32)}
    answer = Client(adders.grpc_address, servable, "add_checked").infer([bad, bad, bad])
    assert isinstance(answer, dict) and "Preprocess Failed" in answer["error"]


@servables
def test_ModelTakesItsInputsAsTheyAre(adders, make_instances, servable):
    instances = make_instances(10)
    answers = Client(adders.grpc_address, servable, "add").infer(instances)
    for instance, answer in zip(instances, answers, strict=True):
        np.testing.assert_array_equal(answer["y"], instance["x1"] + instance["x2"])
