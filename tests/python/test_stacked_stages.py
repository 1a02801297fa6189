"""Functions that take stacked arrays, a row for each instance."""

import numpy as np
import pytest

from stage_calls import DTYPES, LARGE, run


def run_stacked(function, instances, outputs=1, **options):
    return run(function, instances, outputs, **{"batch_size": 8, "stacked": True, **options})


def test_instances_are_rows_of_one_array_for_each_input():
    seen = []

    def add(x, y):
        seen.append((x.shape, x.dtype, y.shape, x.flags.writeable))
        return x + y

    instances = [[np.full((2, 3), i, np.float32), np.float32(10)] for i in range(4)]
    values, failures = run_stacked(lambda x, y: add(x, y[:, None, None]), instances)
    assert not failures and seen == [((4, 2, 3), np.float32, (4, 1, 1), True)]
    for i in range(4):
        assert values[i][0].dtype == np.float32
        np.testing.assert_array_equal(values[i][0], np.full((2, 3), 10 + i))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (1, 2, 1, 2, 1, 2, 2)])
def test_every_type_and_shape_is_stacked(dtype, shape):
    arrays = [(np.arange(np.prod(shape, dtype=int)) % 2 + i % 2).reshape(shape).astype(dtype) for i in range(3)]
    values, failures = run_stacked(lambda x: x, [[array] for array in arrays])
    assert not failures
    for i, array in enumerate(arrays):
        assert (values[i][0].dtype, values[i][0].shape) == (array.dtype, shape)
        np.testing.assert_array_equal(values[i][0], array)


@pytest.mark.parametrize("step", [1, 2], ids=["side by side", "with gaps"])
def test_large_rows_at_equal_distances_are_a_view(step):
    memory = np.arange(8 * LARGE, dtype=np.float32).reshape(8, LARGE)
    rows = memory[::step]
    seen = []

    def function(x):
        seen.append((x.shape, x.strides, x.ctypes.data, np.shares_memory(x, memory)))
        x[:, 0] = -1
        return x[:, 1]

    values, failures = run_stacked(function, [[row] for row in rows], write_back=[True])
    assert not failures and [values[i][0] for i in range(len(rows))] == [row[1] for row in rows]
    assert seen == [((len(rows), LARGE), rows.strides, rows.ctypes.data, True)]
    assert (rows[:, 0] == -1).all(), "an in-place change is one of the memory that later stages read"


@pytest.mark.parametrize("size", [4, LARGE])
def test_rows_apart_are_copied_once_and_written_back(size):
    memory = np.zeros((5, size))
    order = [3, 0, 4]

    def function(x):
        assert not np.shares_memory(x, memory)
        x += np.arange(1, 4)[:, None]
        return x[:, 0]

    values, failures = run_stacked(function, [[memory[i]] for i in order], write_back=[True])
    assert not failures and [values[i][0] for i in range(3)] == [1, 2, 3]
    assert memory[:, -1].tolist() == [2, 0, 0, 1, 3]


def test_small_stacked_inputs_may_be_kept():
    kept = []
    memory = np.ones((3, 4))
    run_stacked(lambda x: kept.append(x) or x, [[row] for row in memory])
    memory[:] = 0
    assert kept[0].tolist() == [[1] * 4] * 3


def test_shapes_and_types_that_differ_come_in_calls_of_their_own():
    sizes = []

    def function(x):
        sizes.append(x.shape)
        return x.sum(axis=1)

    instances = [[np.ones(n, d)] for n, d in ((2, "f4"), (2, "f4"), (3, "f4"), (3, "f8"), (2, "f4"))]
    values, failures = run_stacked(function, instances)
    assert sizes == [(2, 2), (1, 3), (1, 3), (1, 2)] and not failures
    assert [values[i][0] for i in range(5)] == [2, 2, 3, 3, 2]


def test_no_array_has_more_rows_than_asked_for():
    sizes = []
    values, _ = run_stacked(lambda x: sizes.append(len(x)) or x, [[i] for i in range(10)], batch_size=4)
    assert sizes == [4, 4, 2] and [values[i][0] for i in range(10)] == list(range(10))


def test_text_comes_and_goes_in_lists():
    def function(text, data):
        assert text == ["a", "bcd"] and [one.tobytes() for one in data] == [b"x", b""]
        return [word.upper() for word in text], [len(one) for one in data]

    values, failures = run_stacked(function, [["a", b"x"], ["bcd", b""]], outputs=2)
    assert not failures and values == {0: ["A", 1], 1: ["BCD", 0]}


def test_a_value_in_a_list_that_cannot_be_sent_fails_its_instance_alone():
    values, failures = run_stacked(lambda x: (["one", None, "three"], x), [[0], [1], [2]], outputs=2)
    assert values == {0: ["one", 0], 2: ["three", 2]}
    assert list(failures) == [1] and "an output is None" in failures[1]


def test_an_exception_fails_only_the_instance_to_blame():
    calls = []

    def function(x):
        calls.append(x.tolist())
        if (x < 0).any():
            raise ValueError("negative")
        return x

    values, failures = run_stacked(function, [[1], [-2], [3]])
    assert calls == [[1, -2, 3], [1], [-2], [3]]
    assert sorted(values) == [0, 2] and failures[1].startswith("ValueError: negative (test_stacked_stages.py:")


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (np.zeros(2), "an output has the shape (2,); its first dimension should be 3"),
        (np.float32(1), "an output has the shape ()"),
        ([1, 2], "an output has 2 value(s) for 3 instance(s)"),
        ((np.zeros(3), np.zeros(3)), "it returned 2 output(s), but the method takes 1"),
        ("abc", "an output is a str; it should be an array with a row"),
        (None, "an output is None; it should be an array"),
        (np.array([1j] * 3), "dtype complex128, which cannot be sent"),
    ],
)
def test_an_unfit_stacked_result_fails_the_instances_of_the_call(result, text):
    values, failures = run_stacked(lambda x: result, [[0], [1], [2]])
    assert not values and sorted(failures) == [0, 1, 2] and all(text in failure for failure in failures.values())


def test_strided_and_tensor_results_are_taken():
    class Tensor:
        def asnumpy(self):
            return np.arange(6).reshape(2, 3).T

    values, failures = run_stacked(lambda x: Tensor(), [[0], [1], [2]])
    assert not failures and [values[i][0].tolist() for i in range(3)] == [[0, 3], [1, 4], [2, 5]]


def test_full_memory_fails_one_row():
    values, failures = run_stacked(lambda x: x, [[0], [1], [2]], no_memory_for=1)
    assert sorted(values) == [0, 2] and not failures
