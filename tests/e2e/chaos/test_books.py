"""The chaos test's own judgement: what is wrong is called wrong, and only what was done explains an error."""

import numpy as np
import pytest

from chaos.ledger import RIGHT, WRONG, Ledger
from chaos.requests import REFUSED, Answer, Request, judge, make_request

X = {"x": np.ones(2, np.float32)}
Y = {"y": np.full(2, 2, np.float32)}


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(instances=(Y, Y)), WRONG),  # the second one should have failed
        (Answer(instances=(Y, f"negative: {REFUSED}")), RIGHT),
        (Answer(instances=(Y,)), WRONG),
        (Answer(instances=({"y": Y["y"] + 1}, REFUSED)), WRONG),
        (Answer(instances=({"z": Y["y"]}, REFUSED)), WRONG),
        (Answer(instances=("servable is not available: no worker", REFUSED)), "servable_unavailable"),
        (Answer("overloaded", "too many"), "overloaded"),
    ],
)
def test_JudgeComparesEveryInstance(answer, outcome):
    request = Request("python", "double", [X, X], [Y, REFUSED])
    assert judge(request, answer)[0] == outcome


def test_EveryRequestHasOneExpectationAnInstance():
    random = np.random.default_rng(1)
    made = [make_request(random) for _ in range(300)]
    assert all(len(one.instances) == len(one.expected) for one in made)
    assert {one.servable for one in made} == {"plain", "batched", "python"}
    assert any(REFUSED in one.expected for one in made)


def test_OnlyWindowsOfThatServableAndKindExplain():
    ledger = Ledger()
    with ledger.window("a death", "plain", "worker_unavailable", clients="rest"):
        now = ledger.now()
        ledger.record("rest-0", "plain", now, "worker_unavailable")
        assert not ledger.unexplained()
        ledger.record("rest-0", "plain", now, "internal")
        ledger.record("rest-0", "batched", now, "worker_unavailable")
        ledger.record("raw-0", "plain", now, "worker_unavailable")
        ledger.record("rest-0", "plain", now, WRONG)
    assert len(ledger.unexplained()) == 4


def test_ErrorsBeforeAndAfterAWindowAreNotExplained():
    ledger = Ledger()
    with ledger.window("a death", "plain", "internal") as window:
        ledger.record("rest-0", "plain", ledger.now(), "internal")
    window.start, window.end = -20.0, -10.0
    assert len(ledger.unexplained()) == 1


def test_NoErrorIsTooManyToBeExamined(monkeypatch):
    monkeypatch.setattr("chaos.ledger.KEPT_ERRORS", 5)
    ledger = Ledger()
    for number in range(30):
        with ledger.window("a death", "plain", "internal"):
            ledger.record("rest-0", "plain", ledger.now(), "internal")
            ledger.record("rest-0", "batched", ledger.now(), "internal", str(number))
    assert [error.text for error in ledger.unexplained()] == [str(number) for number in range(30)]
    assert len(ledger.errors) < 60
