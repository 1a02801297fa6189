"""The border between the native executor and users' Python functions, driven through its C entry point."""

import threading

import numpy as np
import pytest

from mindspore_serving.worker import _stage_runner, _stage_testing

# More bytes than are handed over as a copy: the function gets a view of the input memory.
LARGE = 100_000


class Stage:
    """One function behind the C entry point."""

    def __init__(self, function, directory="/nowhere"):
        self.runner = _stage_runner.StageRunner(str(directory))
        self.number = self.runner.add(function)
        self.capsule = self.runner.capsule()

    def __call__(self, instances, outputs=1, **options):
        return _stage_testing.call_capsule(self.capsule, self.number, instances, outputs, **options)


def run(function, instances, outputs=1, **options):
    """Outputs by instance, and failures by instance."""
    values, failures = Stage(function)(instances, outputs, **options)
    by_instance = {}
    for instance, output, value in values:
        assert output == len(by_instance.setdefault(instance, [])), "outputs come in order"
        by_instance[instance].append(value)
    assert all(len(outs) == outputs for outs in by_instance.values()), "all outputs of an instance or none"
    assert not set(by_instance) & {instance for instance, _ in failures}, "an instance has outputs or a failure"
    return by_instance, dict(failures)


def run_one(function, *inputs, outputs=1):
    """The outputs of one instance that must not fail; one output comes bare."""
    values, failures = run(function, [list(inputs)], outputs)
    assert not failures
    return values[0][0] if outputs == 1 else values[0]


def fail_one(function, *inputs, outputs=1):
    """The text with which one instance must fail."""
    values, failures = run(function, [list(inputs)], outputs)
    assert not values
    return failures[0]


# ---- arguments

DTYPES = ["bool", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 0), (1, 2, 1, 2, 1, 2, 1, 2)])
def test_every_type_and_shape_passes_through(dtype, shape):
    array = (np.arange(np.prod(shape, dtype=int)) % 2).reshape(shape).astype(dtype)
    seen = []

    def function(x):
        seen.append((type(x), x.dtype, x.shape, x.flags.writeable))
        return x

    result = run_one(function, array)
    assert seen == [(np.ndarray, np.dtype(dtype), shape, True)]
    assert (result.dtype, result.shape) == (np.dtype(dtype), shape)
    np.testing.assert_array_equal(result, array)


def test_text_is_str_and_bytes_are_an_array_of_uint8():
    seen = []

    def function(text, data):
        seen.append((text, type(data), data.dtype, data.shape, data.tobytes()))
        return text

    assert run_one(function, "Grüße \0 本", b"\x00\xff!") == "Grüße \0 本"
    assert seen == [("Grüße \0 本", np.ndarray, np.uint8, (3,), b"\x00\xff!")]
    assert run_one(lambda text: text, "") == ""
    assert run_one(lambda data: data, b"").shape == (0,)


def test_small_inputs_may_be_kept():
    kept = []
    memory = np.array([1.0, 2.0])
    run_one(lambda x: kept.append(x) or x, memory)
    memory[:] = 0
    assert kept[0].tolist() == [1.0, 2.0]


def test_large_inputs_are_views_without_a_copy():
    memory = np.zeros(LARGE)
    run_one(lambda x: x.ctypes.data, memory)
    assert run_one(lambda x: x.ctypes.data, memory) == memory.ctypes.data


@pytest.mark.parametrize("size", [4, LARGE])
def test_in_place_changes_are_seen_by_later_stages(size):
    first, second = np.zeros(size), np.zeros(size)

    def function(x):
        x += 1
        return 0

    run(function, [[first], [second]], write_back=[True])
    assert first[0] == 1 and first[-1] == 1 and second[-1] == 1


def test_in_place_changes_of_small_inputs_stay_in_the_stage_when_nobody_reads_them():
    memory = np.zeros(4)

    def function(x):
        x += 1
        return x

    assert run_one(function, memory).tolist() == [1, 1, 1, 1]
    assert memory.tolist() == [0, 0, 0, 0]


# ---- results


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (True, "bool"),
        (7, "i8"),
        (-(2**63), "i8"),
        (1.5, "f8"),
        (np.float32(1.5), "f4"),
        (np.float64(1.5), "f8"),
        (np.float16(1.5), "f2"),
        (np.uint8(3), "u1"),
        (np.bool_(True), "bool"),
        (np.longlong(3), "i8"),
        (np.ulonglong(3), "u8"),
    ],
)
def test_plain_numbers_become_scalars(value, dtype):
    result = run_one(lambda x: value, 0)
    assert (result.dtype, result.shape) == (np.dtype(dtype), ())
    assert result == value


def test_text_and_bytes_come_back_as_they_are():
    assert run_one(lambda x: "naïve", 0) == "naïve"
    assert run_one(lambda x: b"\x00\x01", 0) == b"\x00\x01"
    assert run_one(lambda x: np.str_("text"), 0) == "text"


@pytest.mark.parametrize("make", [tuple, list])
def test_a_tuple_or_list_is_several_outputs(make):
    values = run_one(lambda x: make([x, "two", 3]), np.float32(1), outputs=3)
    assert values == [np.float32(1), "two", 3]


def test_nested_lists_become_arrays():
    assert run_one(lambda x: ([[1, 2], [3, 4]],), 0).tolist() == [[1, 2], [3, 4]]
    assert run_one(lambda x: (([True],),), 0).dtype == bool
    assert run_one(lambda x: bytearray(b"ab"), 0).tolist() == [97, 98]


@pytest.mark.parametrize(
    "change",
    [np.transpose, np.asfortranarray, lambda a: a[::-1, ::2], lambda a: a.astype(">f4"), lambda a: a[:, :1]],
    ids=["transposed", "fortran", "strided", "big endian", "column"],
)
def test_any_memory_layout_is_copied(change):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = change(array)
    result = run_one(lambda x: change(x), array)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)


def test_tensors_are_taken_without_importing_mind_spore():
    class Tensor:
        def asnumpy(self):
            return np.array([1, 2], np.int32)

    assert run_one(lambda x: Tensor(), 0).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "an output is None"),
        (1 + 2j, "dtype complex128, which cannot be sent"),
        (np.array([object()]), "dtype object, which cannot be sent"),
        (np.array(["text"]), "dtype <U4, which cannot be sent"),
        (np.array(["2020-01-01"], "M8[D]"), r"dtype datetime64[D], which cannot be sent"),
        (np.longdouble(1), "cannot be sent"),
        (np.dtype("f4"), "dtype object, which cannot be sent"),
        ({"a": 1}, "dtype object, which cannot be sent"),
        (2**63, "does not fit in int64"),
        (np.zeros((1,) * 9), "9 dimensions; at most 8 can be sent"),
        (([[1, 2], [3]],), "is no array"),
        ("\ud800", "UnicodeEncodeError"),
        ((1, 2), "it returned 2 output(s), but the method takes 1"),
        ([1, 2], "a list counts as several outputs"),
        ((), "it returned 0 output(s), but the method takes 1"),
    ],
)
def test_what_cannot_be_sent_fails_its_instance_alone(value, text):
    values, failures = run(lambda x: value if x == 1 else x, [[0], [1], [2]])
    assert list(values) == [0, 2]
    assert text in failures[1]
    assert f"{__file__.rsplit('/', 1)[-1]}:" in failures[1]


def test_too_few_outputs_fail_the_instance():
    assert "it returned 1 output (a int), but the method takes 2" in fail_one(lambda x: 1, 0, outputs=2)


def test_nothing_is_put_when_the_last_output_is_wrong():
    assert "an output is None" in fail_one(lambda x: (1, 2, None), 0, outputs=3)


def test_full_memory_fails_one_instance_and_the_others_go_on():
    values, failures = run(lambda x: (x, x), [[0], [1], [2]], outputs=2, no_memory_for=1)
    assert list(values) == [0, 2]
    assert failures == {}  # the sink that refuses has failed the instance itself


# ---- exceptions


def test_bad_instance_fails_alone():
    def divide(x):
        if x == 0:
            raise ZeroDivisionError("x is zero")
        return 1 / x

    values, failures = run(divide, [[1], [0], [2]])
    assert [values[0][0], values[2][0]] == [1.0, 0.5]
    line = divide.__code__.co_firstlineno + 2
    assert failures == {1: f"ZeroDivisionError: x is zero (test_stage_runner.py:{line}, function divide)"}


def test_the_error_points_into_the_servable(tmp_path):
    servable = tmp_path / "add"
    servable.mkdir()
    path = servable / "servable_config.py"
    path.write_text("import json\n\ndef load(x):\n    return json.loads('{')\n")
    space = {}
    exec(compile(path.read_text(), str(path), "exec"), space)
    _, failures = Stage(space["load"], tmp_path)([[0]])
    ((_, text),) = failures
    assert text.startswith("JSONDecodeError: ")
    assert text.endswith("(add/servable_config.py:4, function load)")


def test_a_wrong_argument_count_is_said_of_the_function():
    text = fail_one(lambda x, y: x, 0)
    assert text.startswith("TypeError: ") and "missing 1 required positional argument" in text
    assert "function <lambda>" in text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, StopIteration])
def test_no_exception_gets_past_the_stage(error):
    def function(x):
        raise error

    assert error.__name__ in fail_one(function, 0)


def test_an_exception_without_a_text_still_fails_the_instance():
    class Silent(Exception):
        def __str__(self):
            raise ValueError

    def function(x):
        raise Silent

    assert "Silent: <its text cannot be made>" in fail_one(function, 0)


def test_the_traceback_is_logged_but_not_for_every_instance(capfd):
    def function(x):
        raise ValueError("logged")

    run(function, [[i] for i in range(100)])
    err = capfd.readouterr().err
    assert err.count("ValueError: logged") == 1
    assert "Traceback" in err and "test_stage_runner.py" in err


# ---- functions that take many instances


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
    assert failures[1].startswith("ValueError: zero (test_stage_runner.py:")


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


# ---- functions that take stacked arrays


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
    assert sorted(values) == [0, 2] and failures[1].startswith("ValueError: negative (test_stage_runner.py:")


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


# ---- threads


def test_what_follows_runs_under_the_same_hold_of_the_interpreter():
    stage = Stage(lambda x: x + 1)
    values, _ = stage([[0], [1]], chained=3)
    assert [int(value) for _, _, value in values] == [1, 2] * 3
    assert stage.runner.holds == 1
    stage([[0]], times=2)
    assert stage.runner.holds == 3


def test_a_threads_own_variables_last_from_call_to_call():
    local = threading.local()

    def count(x):
        local.calls = getattr(local, "calls", 0) + 1
        return local.calls

    values, _ = Stage(count)([[0], [0]], times=3)
    assert [int(value) for _, _, value in values] == [1, 2, 3, 4, 5, 6]


def test_calls_of_different_functions_run_side_by_side():
    barrier = threading.Barrier(2, timeout=10)

    def meet(x):
        barrier.wait()
        return x

    runner = _stage_runner.StageRunner("/nowhere")
    numbers = [runner.add(meet), runner.add(lambda x: meet(x))]
    results = {}

    def call(number):
        results[number] = _stage_testing.call_capsule(runner.capsule(), number, [[number]], 1)

    threads = [threading.Thread(target=call, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: int(values[0][2]) for number, (values, _) in results.items()} == {0: 0, 1: 1}
