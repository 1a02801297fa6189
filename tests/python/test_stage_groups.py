"""Functions that take many instances at once."""

import numpy as np
import pytest

from stage_calls import run


def test_a_group_is_a_tuple_of_tuples():
    seen = []

    def double(instances):
        seen.append(instances)
        for x, text in instances:
            yield x * 2, text

    values, failures = run(double, [[np.int64(i), str(i)] for i in range(3)], outputs=2, batch_size=8)
    assert not failures
    assert [values[i] for i in range(3)] == [[0, "0"], [2, "1"], [4, "2"]]
    assert len(seen) == 1 and isinstance(seen[0], tuple) and isinstance(seen[0][0], tuple)


def test_no_call_gets_more_than_the_groups_size():
    sizes = []

    def count(instances):
        sizes.append(len(instances))
        return [x for (x,) in instances]

    values, _ = run(count, [[i] for i in range(10)], batch_size=4)
    assert sizes == [4, 4, 2]
    assert [values[i][0] for i in range(10)] == list(range(10))


@pytest.mark.parametrize("make", [list, tuple, iter, np.array])
def test_any_iterable_of_results_is_taken(make):
    values, failures = run(lambda instances: make([x * 10 for (x,) in instances]), [[1], [2]], batch_size=4)
    assert not failures
    assert [values[i][0] for i in range(2)] == [10, 20]


def test_a_generator_is_called_again_with_the_rest_after_an_exception():
    calls = []

    def invert(instances):
        calls.append([int(x) for (x,) in instances])
        for (x,) in instances:
            if x == 0:
                raise ValueError("zero")
            yield 1.0 / x

    values, failures = run(invert, [[1], [0], [2], [0], [4]], batch_size=8)
    assert calls == [[1, 0, 2, 0, 4], [2, 0, 4], [4]]
    assert [values[i][0] for i in (0, 2, 4)] == [1.0, 0.5, 0.25]
    assert list(failures) == [1, 3]
    assert failures[1].startswith("ValueError: zero (test_stage_groups.py:")


def test_a_function_that_raises_at_once_fails_only_the_instance_to_blame():
    def invert(instances):
        return [1 // int(x) for (x,) in instances]

    values, failures = run(invert, [[1], [1], [0], [1]], batch_size=8)
    assert sorted(values) == [0, 1, 3]
    assert list(failures) == [2] and "ZeroDivisionError" in failures[2]


def test_too_few_results_fail_the_rest_and_too_many_are_ignored():
    values, failures = run(lambda instances: [1, 2], [[0], [0], [0], [0]], batch_size=8)
    assert sorted(values) == [0, 1] and sorted(failures) == [2, 3]
    assert "it gave 2 result(s) for 4 instances" in failures[2]
    values, failures = run(lambda instances: iter(range(100)), [[0], [0]], batch_size=8)
    assert sorted(values) == [0, 1] and not failures


def test_a_wrong_result_in_a_group_fails_alone():
    values, failures = run(lambda instances: [1, None, (1, 2), 4], [[0]] * 4, batch_size=8)
    assert sorted(values) == [0, 3] and sorted(failures) == [1, 2]


@pytest.mark.parametrize("result", [None, 1, "text", {"a": 1}])
def test_a_groups_result_must_be_iterable(result):
    values, failures = run(lambda instances: result, [[0], [0]], batch_size=8)
    assert not values
    assert "it should yield, or return a list of, one result for each instance" in failures[0]
    assert sorted(failures) == [0, 1]


def test_in_place_changes_in_a_group_are_written_back():
    memory = [np.zeros(2) for _ in range(3)]

    def function(instances):
        for (x,) in instances:
            x += 5
            yield 0

    run(function, [[m] for m in memory], batch_size=2, write_back=[True])
    assert [m.tolist() for m in memory] == [[5, 5]] * 3
