"""Runs that MindSpore itself fails on one rank alone: the request gets the rank's number, the reason
and what the rank has printed last. The ranks, which are out of step, are started again and answer."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export_rank_models import POISON, WEIGHT
from mindspore_serving.client import Client
from rank_servable import RankServable, rows, wait_until

Parts = Callable[..., list[Path]]
Make = Callable[..., RankServable]

BACK_SECONDS = 240


def ask(servable: RankServable, row: np.ndarray) -> np.ndarray | str:
    """The answer or the error."""
    reply = Client(servable.server.grpc_address, "ranks", "predict").infer([{"x": row}])
    one = reply if isinstance(reply, dict) else reply[0]
    return str(one["error"]) if "error" in one else np.asarray(one["y"])


def check_row(servable: RankServable, seed: int) -> bool:
    (row,) = rows(1, seed)
    answer = ask(servable, row)
    if isinstance(answer, str):
        assert "not available" in answer or "rank" in answer, answer
        return False
    np.testing.assert_allclose(answer, row @ WEIGHT, rtol=1e-4, atol=1e-4)
    return True


def wait_for_answers(servable: RankServable) -> None:
    wait_until(lambda: check_row(servable, 2), BACK_SECONDS, servable.logs)


def check_blame(error: np.ndarray | str, what: str) -> None:
    """Of rank 1, with `what`, and with what its log ends with."""
    assert isinstance(error, str), error
    assert "rank 1 on 127.0.0.1" in error and what in error, error
    assert "; the last lines of its log:" in error, error


@pytest.mark.parametrize(
    ("place", "others"), [(0, "the ranks are out of step"), (1, "rank 0 on 127.0.0.1 did not finish")]
)
def test_ARankThatFailsAlone_FailsThatRequestWithItsNumberAndLog(
    make_servable: Make, parts: Parts, place: int, others: str
):
    """After the collective, which rank 0 finishes, and before it, where rank 0 waits for rank 1."""
    servable = make_servable()
    servable.start_server()
    servable.start_launcher(parts("poison2"))
    servable.wait_ready()
    assert check_row(servable, 1)
    before = servable.agents()
    (row,) = rows(1, 3)
    row[place] = POISON + 500
    error = ask(servable, row)
    check_blame(error, "'input_indices' should be in the range [0, 4), but got 500")
    assert others in error
    wait_for_answers(servable)
    assert not set(before.values()) & set(servable.agents().values())
    servable.stop()


def test_ARankThatAnswersInAnotherShape_FailsThatRequestWithItsNumberAndLog(make_servable: Make, parts: Parts):
    servable = make_servable(declared={"with_batch_dim": False})
    servable.start_server()
    servable.start_launcher(parts("ragged2"))
    servable.wait_ready()
    row = np.array([1, -2, 3, -4, 5, 6, 7, 8], np.float32)
    np.testing.assert_array_equal(ask(servable, row), row[row > 0])
    np.testing.assert_array_equal(ask(servable, -row), [2, 4])
    before = servable.agents()
    poisoned = row.copy()
    poisoned[0] = POISON + 500
    check_blame(ask(servable, poisoned), "has answered with kMSI_Float32[5], rank 0 on 127.0.0.1 with kMSI_Float32[6]")
    wait_until(lambda: isinstance(ask(servable, row), np.ndarray), BACK_SECONDS, servable.logs)
    assert not set(before.values()) & set(servable.agents().values())
    servable.stop()
