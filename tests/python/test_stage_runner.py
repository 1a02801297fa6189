"""The border between the native executor and users' Python functions, driven through its C entry point."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from mindspore_serving.worker import _stage_runner, _stage_testing
from stage_calls import DTYPES, LARGE, Stage, fail_one, run, run_one


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


class WriteOnly:
    """A sys.stderr as users make them, with nothing but what `print` alone needs."""

    def __init__(self):
        self.written = ""

    def write(self, text):
        self.written += text


class Raising:
    def write(self, text):
        raise KeyboardInterrupt


def closed_file(tmp_path):
    file = open(tmp_path / "closed", "w")
    file.close()
    return file


@pytest.mark.parametrize("options", [{}, {"batch_size": 8}, {"batch_size": 8, "stacked": True}], ids=str)
@pytest.mark.parametrize("kind", ["write alone", "closed", "None", "raising"])
def test_a_replaced_stderr_changes_no_answer(kind, options, tmp_path, monkeypatch):
    def check(x):
        if x == 1:
            raise ValueError("x is one")
        return x

    def check_group(instances):
        return [check(x) for (x,) in instances]

    def check_stack(x):
        return [check(row) for row in x]

    function = check_stack if "stacked" in options else check_group if options else check
    stderr = {"write alone": WriteOnly(), "closed": closed_file(tmp_path), "None": None, "raising": Raising()}[kind]
    monkeypatch.setattr(sys, "stderr", stderr)
    values, failures = run(function, [[0], [1], [2]], **options)
    monkeypatch.undo()
    assert {i: int(value) for i, (value,) in values.items()} == {0: 0, 2: 2}
    assert list(failures) == [1] and failures[1].startswith("ValueError: x is one (test_stage_runner.py:")
    if kind == "write alone":
        assert "ValueError: x is one" in stderr.written


@pytest.mark.parametrize("module", ["main", "agent"])
def test_a_worker_leaves_whatever_its_stderr_is(module):
    program = f"""
import sys
from mindspore_serving.worker.{module} import _leave
sys.stderr = object()
_leave(7)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=120).returncode == 7


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
