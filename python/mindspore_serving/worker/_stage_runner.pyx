# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# distutils: language = c++
"""Runs users' Python functions for the native stage executor: one call, and one taking of the GIL, for a batch.

The executor sees a plain C function (csrc/worker/python_stage.h), handed over in a capsule. The capsule's context is a
StageRunner, which knows the functions by number.
"""

import os
import sys
import time
import traceback

import numpy as np

from cpython.bool cimport PyBool_Check
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_Check
from cpython.pycapsule cimport PyCapsule_GetContext, PyCapsule_GetPointer, PyCapsule_New, PyCapsule_SetContext
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_Check, PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp cimport bool as cpp_bool
from libcpp.string cimport string
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

cimport numpy as cnp

cnp.import_array()


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

cdef extern from "tensor/dtype.h" namespace "msserving" nogil:
    cdef enum class DataType(uint8_t):
        kUnknown
        kUint8
        kInt64
        kFloat64
        kString
        kBytes

cdef extern from "tensor/tensor_view.h" namespace "msserving" nogil:
    enum: kMaxRank
    cdef cppclass TensorView:
        const uint8_t* data
        uint64_t bytes
        DataType dtype
        uint8_t rank
        int64_t dims[8]

cdef extern from "worker/python_stage.h" namespace "msserving" nogil:
    cdef cppclass PythonStageSink:
        void Enter(uint32_t first, uint32_t count)
        cpp_bool Put(uint32_t instance, uint32_t output, const TensorView& value)
        void Fail(uint32_t instance, string_view message)

    cdef cppclass PythonStageCall:
        uint32_t function
        uint32_t instances
        uint32_t inputs
        uint32_t outputs
        uint32_t batch_size
        const TensorView* input
        const uint8_t* write_back
        PythonStageSink* sink

    ctypedef void (*PythonStageFunction)(void* context, const PythonStageCall* call)

cdef extern from *:
    """
    #include <cstdint>

    #include "tensor/dtype.h"

    // A thread that Python has not made gets a Python thread state at its first call and keeps it: making and dropping
    // one for each call costs more than a small stage, and would lose the thread's threading.local values every time.
    static void KeepPythonThreadState() {
      static thread_local bool kept = false;
      if (kept) return;
      kept = true;
      const PyGILState_STATE state = PyGILState_Ensure();
      if (state == PyGILState_UNLOCKED) {
        PyEval_SaveThread();
      } else {
        PyGILState_Release(state);
      }
    }

    // Element types by NumPy's type number, and back.
    static msserving::DataType TypeOfNumpy(int number) {
      using enum msserving::DataType;
      static constexpr msserving::DataType kTypes[] = {kBool,   kInt8,  kUint8, kInt16,  kUint16,  kInt32,  kUint32,
                                                       kInt64,  kUint64, kInt64, kUint64, kFloat32, kFloat64};
      static_assert(NPY_BOOL == 0 && NPY_LONG == 7 && NPY_LONGLONG == 9 && NPY_DOUBLE == 12 && sizeof(long) == 8);
      if (number >= 0 && number <= NPY_DOUBLE) return kTypes[number];
      return number == NPY_HALF ? kFloat16 : kUnknown;
    }

    static int NumpyOfType(msserving::DataType type) {
      static constexpr int kNumbers[msserving::kDataTypeCount] = {
          -1,         NPY_BOOL,  NPY_INT8,   NPY_UINT8,   NPY_INT16,   NPY_UINT16,  NPY_INT32, NPY_UINT32,
          NPY_INT64,  NPY_UINT64, NPY_FLOAT16, NPY_FLOAT32, NPY_FLOAT64, -1,          NPY_UINT8};
      const auto i = static_cast<size_t>(type);
      return i < msserving::kDataTypeCount ? kNumbers[i] : -1;
    }
    """
    void KeepPythonThreadState() nogil
    DataType TypeOfNumpy(int number) nogil
    int NumpyOfType(DataType dtype) nogil


cdef const char* CAPSULE = b"msserving.python_stage"
# Inputs up to this size are handed over in memory of their own, which the function may keep.
cdef uint64_t OWN_COPY_BYTES = 64 << 10
cdef double LOG_INTERVAL_S = 1.0


class ResultError(Exception):
    """A function returned something that cannot become its stage's outputs."""


cdef object to_python(const TensorView* view):
    """A value as user code sees it: str for text, otherwise an array (bytes as uint8)."""
    cdef cnp.npy_intp dims[8]
    cdef int rank = view.rank
    cdef int number
    cdef int i
    cdef cnp.ndarray array
    if view.dtype == DataType.kString:
        return PyUnicode_DecodeUTF8(<const char*>view.data, <Py_ssize_t>view.bytes, NULL)
    if view.dtype == DataType.kBytes:
        rank = 1
        dims[0] = <cnp.npy_intp>view.bytes
    else:
        for i in range(rank):
            dims[i] = view.dims[i]
    number = NumpyOfType(view.dtype)
    if number < 0:
        raise ResultError("an input has an unknown data type")
    if view.bytes > OWN_COPY_BYTES:
        return cnp.PyArray_SimpleNewFromData(rank, dims, number, <void*>view.data)
    array = cnp.PyArray_SimpleNew(rank, dims, number)
    memcpy(cnp.PyArray_DATA(array), view.data, view.bytes)
    return array


cdef void write_back(const PythonStageCall* call, uint32_t instance, tuple values):
    """Carry in-place changes of own copies to where later stages read. (Views have changed that memory already.)"""
    cdef const TensorView* view = call.input + <uint64_t>instance * call.inputs
    cdef cnp.ndarray array
    cdef uint32_t i
    for i in range(call.inputs):
        if call.write_back[i] and view[i].dtype != DataType.kString and view[i].bytes <= OWN_COPY_BYTES:
            array = values[i]
            if <uint64_t>cnp.PyArray_NBYTES(array) == view[i].bytes and cnp.PyArray_IS_C_CONTIGUOUS(array):
                memcpy(<void*>view[i].data, cnp.PyArray_DATA(array), view[i].bytes)


cdef tuple make_arguments(const PythonStageCall* call, uint32_t instance):
    cdef const TensorView* view = call.input + <uint64_t>instance * call.inputs
    cdef tuple values = PyTuple_New(call.inputs)
    cdef object value
    cdef uint32_t i
    for i in range(call.inputs):
        value = to_python(view + i)
        Py_INCREF(value)  # PyTuple_SET_ITEM takes over a reference
        PyTuple_SET_ITEM(values, i, value)
    return values


cdef int view_array(cnp.ndarray array, TensorView* view, list held) except -1:
    """Point `view` at an array that somebody else keeps alive."""
    cdef int i
    view.dtype = TypeOfNumpy(cnp.PyArray_TYPE(array))
    if view.dtype == DataType.kUnknown:
        raise ResultError(f"an output has dtype {array.dtype}, which cannot be sent; use bool, int, uint or float")
    if not (cnp.PyArray_IS_C_CONTIGUOUS(array) and cnp.PyArray_ISNOTSWAPPED(array)):
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
        held.append(array)
    if cnp.PyArray_NDIM(array) > kMaxRank:
        raise ResultError(f"an output has {cnp.PyArray_NDIM(array)} dimensions; at most {kMaxRank} can be sent")
    view.rank = <uint8_t>cnp.PyArray_NDIM(array)
    for i in range(view.rank):
        view.dims[i] = cnp.PyArray_DIM(array, i)
    view.data = <const uint8_t*>cnp.PyArray_DATA(array)
    view.bytes = <uint64_t>cnp.PyArray_NBYTES(array)
    return 0


cdef int view_other(object value, TensorView* view, list held) except -1:
    """What is no array, text or plain number: NumPy scalars, MindSpore tensors, nested lists, buffers."""
    if hasattr(value, "asnumpy"):
        value = value.asnumpy()
    try:
        value = np.asarray(value)
    except Exception as error:
        raise ResultError(f"an output of type {type(value).__name__} is no array: {error}") from None
    held.append(value)
    return view_array(value, view, held)


cdef int view_value(object value, TensorView* view, list held) except -1:
    """Point `view` at a function's output. `value` and what is added to `held` keep the memory alive."""
    cdef Py_ssize_t size
    cdef int overflow = 0
    cdef cnp.ndarray number
    if cnp.PyArray_Check(value):
        return view_array(value, view, held)
    if PyUnicode_Check(value):
        view.data = <const uint8_t*>PyUnicode_AsUTF8AndSize(value, &size)
        view.dtype = DataType.kString
        view.bytes = <uint64_t>size
        view.rank = 0
    elif PyBytes_Check(value):
        view.data = <const uint8_t*>PyBytes_AS_STRING(value)
        view.bytes = <uint64_t>PyBytes_GET_SIZE(value)
        view.dtype = DataType.kBytes
        view.rank = 0
    elif PyFloat_CheckExact(value):
        number = cnp.PyArray_EMPTY(0, NULL, cnp.NPY_FLOAT64, 0)
        (<double*>cnp.PyArray_DATA(number))[0] = PyFloat_AS_DOUBLE(value)
        held.append(number)
        return view_array(number, view, held)
    elif PyLong_Check(value) and not PyBool_Check(value):
        number = cnp.PyArray_EMPTY(0, NULL, cnp.NPY_INT64, 0)
        (<int64_t*>cnp.PyArray_DATA(number))[0] = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow:
            raise ResultError(f"an output is the int {value}, which does not fit in int64")
        held.append(number)
        return view_array(number, view, held)
    elif value is None:
        raise ResultError("an output is None; every output needs a value")
    else:
        return view_other(value, view, held)
    return 0


cdef int view_results(object result, uint32_t outputs, vector[TensorView]& views, list held) except -1:
    cdef uint32_t i
    if isinstance(result, (tuple, list)):
        if <uint32_t>len(result) != outputs:
            hint = "; a list counts as several outputs, use numpy.asarray() for one" if isinstance(result, list) else ""
            raise ResultError(f"it returned {len(result)} output(s), but the method takes {outputs} from it{hint}")
        for i in range(outputs):
            view_value(result[i], &views[i], held)
        return 0
    if outputs != 1:
        raise ResultError(
            f"it returned 1 output (a {type(result).__name__}), but the method takes {outputs} from it"
        )
    return view_value(result, &views[0], held)


cdef class StageRunner:
    """Knows the functions of a servable and calls them. Add all functions before the executor starts.

    Args:
        servable_directory (str): Where users' own code lies; frames there are the ones that error texts point to.
    """

    cdef list functions
    cdef list next_log_s
    cdef str directory

    def __cinit__(self, str servable_directory):
        self.functions = []
        self.next_log_s = []
        self.directory = os.path.join(os.path.realpath(servable_directory), "")

    def add(self, function) -> int:
        """Make a function known.

        Args:
            function: What the stage calls.

        Returns:
            Its number.
        """
        self.functions.append(function)
        self.next_log_s.append(0.0)
        return len(self.functions) - 1

    def capsule(self):
        """The C function and its context, for the native worker. This object must outlive every call of it."""
        capsule = PyCapsule_New(<void*>run_stage, CAPSULE, NULL)
        PyCapsule_SetContext(capsule, <void*>self)
        return capsule

    cdef void run(self, const PythonStageCall* call) noexcept:
        cdef uint32_t i
        cdef uint32_t count
        cdef vector[TensorView] views
        try:
            function = self.functions[call.function]
            views.resize(call.outputs)
            if call.batch_size == 0:
                for i in range(call.instances):
                    self.run_instance(call, function, i, views)
                return
            i = 0
            while i < call.instances:
                count = min(call.batch_size, call.instances - i)
                self.run_group(call, function, i, i + count, views)
                i += count
        except BaseException:  # a defect of this module: users' exceptions are caught where they belong to an instance
            traceback.print_exc()
            os.abort()

    cdef int run_instance(
        self, const PythonStageCall* call, object function, uint32_t instance, vector[TensorView]& views
    ) except -1:
        cdef tuple values
        try:
            values = make_arguments(call, instance)
            call.sink.Enter(instance, 1)
            result = function(*values)
        except BaseException as error:
            self.fail(call, instance, error)
            return 0
        return self.finish(call, instance, values, result, views)

    cdef int finish(
        self,
        const PythonStageCall* call,
        uint32_t instance,
        tuple values,
        object result,
        vector[TensorView]& views,
    ) except -1:
        """Hand over an instance's outputs, all or none."""
        cdef list held = []
        cdef uint32_t i
        try:
            view_results(result, call.outputs, views, held)
        except BaseException as error:
            self.fail(call, instance, error)
            return 0
        for i in range(call.outputs):
            if not call.sink.Put(instance, i, views[i]):
                return 0  # out of memory; the sink has failed the instance
        write_back(call, instance, values)
        return 0

    cdef int run_group(
        self, const PythonStageCall* call, object function, uint32_t first, uint32_t end, vector[TensorView]& views
    ) except -1:
        """Instances first to end - 1 in one call; again with the rest after each one that raises."""
        cdef list group
        cdef uint32_t begin
        cdef uint32_t i
        while first < end:
            begin = first
            group = []
            for i in range(begin, end):
                try:
                    group.append(make_arguments(call, i))
                except BaseException as error:
                    if i == begin:
                        self.fail(call, i, error)
                        first += 1
                    break
            if not group:
                continue
            last = begin + <uint32_t>len(group)
            call.sink.Enter(begin, <uint32_t>len(group))
            try:
                results = self.results_of(function, tuple(group))
            except BaseException as error:
                if len(group) == 1:
                    self.fail(call, begin, error)
                else:  # which of them it was, each alone will show
                    for i in range(begin, last):
                        self.run_group(call, function, i, i + 1, views)
                first = last
                continue
            while first < last:
                try:
                    result = next(results)
                except StopIteration:
                    self.fail_short(call, function, begin, first, last)
                    first = last
                    break
                except BaseException as error:
                    self.fail(call, first, error)
                    first += 1
                    break
                self.finish(call, first, group[first - begin], result, views)
                first += 1
        return 0

    cdef object results_of(self, object function, tuple group):
        results = function(group)
        if isinstance(results, (str, bytes, dict, set, frozenset)) or not hasattr(results, "__iter__"):
            raise ResultError(
                f"it returned a {type(results).__name__}; it should yield, or return a list of, one result for each "
                "instance"
            )
        return iter(results)

    cdef int fail_short(
        self, const PythonStageCall* call, object function, uint32_t begin, uint32_t first, uint32_t last
    ) except -1:
        cdef uint32_t i
        error = ResultError(f"it gave {first - begin} result(s) for {last - begin} instances")
        for i in range(first, last):
            self.fail(call, i, error)
        return 0

    cdef int fail(self, const PythonStageCall* call, uint32_t instance, object error) except -1:
        function = self.functions[call.function]
        cdef bytes text = describe_error(error, function, self.directory).encode("utf-8", "replace")
        call.sink.Fail(instance, string_view(PyBytes_AS_STRING(text), <size_t>PyBytes_GET_SIZE(text)))
        now = time.monotonic()
        if now >= self.next_log_s[call.function]:  # a client that causes errors must not fill the disk
            self.next_log_s[call.function] = now + LOG_INTERVAL_S
            lines = traceback.format_exception(type(error), error, error.__traceback__)
            print(f"Function {name_of(function)} failed:\n{''.join(lines)}", file=sys.stderr, end="", flush=True)
        return 0


cdef void run_stage(void* context, const PythonStageCall* call) noexcept nogil:
    KeepPythonThreadState()
    with gil:
        (<StageRunner>context).run(call)


def name_of(function) -> str:
    """What a function is called in messages."""
    return getattr(function, "__name__", None) or type(function).__name__


def describe_error(error, function, directory: str) -> str:
    """An exception in one line, with the user's own file and line.

    Args:
        error: What was raised.
        function: The function that the stage called.
        directory: Where users' own code lies, with a separator at the end.

    Returns:
        ``<exception type>: <message> (<file>:<line>, function <name>)``
    """
    place = None
    trace = error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        mine = path.endswith("_stage_runner.pyx")
        if not mine and (place is None or os.path.realpath(path).startswith(directory)):
            place = (path, trace.tb_lineno)
        trace = trace.tb_next
    if place is None:
        code = getattr(function, "__code__", None)
        if code is not None:
            place = (code.co_filename, code.co_firstlineno)
    try:
        message = str(error)
    except Exception:
        message = "<its text cannot be made>"
    head = message if isinstance(error, ResultError) else f"{type(error).__name__}: {message}"
    where = f"function {name_of(function)}"
    if place is not None:
        path = os.path.realpath(place[0])
        shown = path[len(directory):] if path.startswith(directory) else os.path.basename(path)
        where = f"{shown}:{place[1]}, {where}"
    return f"{head} ({where})"


# ---- For the tests: the executor's side of the border, recording what it is given.

cdef extern from *:
    """
    #include <string>
    #include <thread>
    #include <utility>
    #include <vector>

    #include "worker/python_stage.h"

    namespace {

    struct RecordedValue {
      uint32_t instance;
      uint32_t output;
      std::string bytes;
      msserving::TensorView view;
    };

    class RecordingSink final : public msserving::PythonStageSink {
     public:
      bool Put(uint32_t instance, uint32_t output, const msserving::TensorView& value) override {
        if (static_cast<int64_t>(instance) == no_memory_for) return false;
        values.push_back({instance, output, std::string(reinterpret_cast<const char*>(value.data), value.bytes), value});
        return true;
      }
      void Fail(uint32_t instance, std::string_view message) override { failures.emplace_back(instance, message); }

      std::vector<RecordedValue> values;
      std::vector<std::pair<uint32_t, std::string>> failures;
      int64_t no_memory_for = -1;
    };

    // From a thread that Python does not know, `times` times.
    void CallFromThread(msserving::PythonStageFunction function, void* context, const msserving::PythonStageCall* call,
                        int times) {
      std::thread([=] {
        for (int i = 0; i < times; ++i) function(context, call);
      }).join();
    }

    }  // namespace
    """
    cdef cppclass RecordedValue:
        uint32_t instance
        uint32_t output
        string bytes
        TensorView view

    cdef cppclass Failure "std::pair<uint32_t, std::string>":
        uint32_t first
        string second

    cdef cppclass RecordingSink(PythonStageSink):
        vector[RecordedValue] values
        vector[Failure] failures
        int64_t no_memory_for

    void CallFromThread(PythonStageFunction function, void* context, const PythonStageCall* call, int times) nogil


def _testing(
    capsule,
    int function,
    list instances,
    int outputs,
    *,
    int batch_size=0,
    list write_back=None,
    int no_memory_for=-1,
    int times=1,
):
    """Call a capsule's function as the executor does, from a native thread, with a sink that records.

    Args:
        capsule: From StageRunner.capsule().
        function: Number of the function.
        instances: A list of instances, each a list of str, bytes or C-contiguous arrays. Arrays are the input memory
            itself.
        outputs: Number of outputs of the stage.
        batch_size: As in the stage.
        write_back: One bool for each input; None: all False.
        no_memory_for: An instance whose outputs the sink has no memory for.
        times: How often to make the same call.

    Returns:
        The values put, each (instance, output, value) with str, bytes or an array; the failures, each
        (instance, message).
    """
    cdef vector[TensorView] views
    cdef vector[uint8_t] flags
    cdef TensorView view
    cdef PythonStageCall call
    cdef RecordingSink sink
    cdef list held = []
    cdef PythonStageFunction pointer = <PythonStageFunction>PyCapsule_GetPointer(capsule, CAPSULE)
    cdef void* context = PyCapsule_GetContext(capsule)
    cdef uint32_t inputs = len(instances[0])
    for instance in instances:
        for value in instance:
            view_value(value, &view, held)
            views.push_back(view)
    flags.resize(inputs)
    if write_back is not None:
        for i in range(inputs):
            flags[i] = bool(write_back[i])
    sink.no_memory_for = no_memory_for
    call.function = function
    call.instances = len(instances)
    call.inputs = inputs
    call.outputs = outputs
    call.batch_size = batch_size
    call.input = views.data()
    call.write_back = flags.data()
    call.sink = &sink
    with nogil:
        CallFromThread(pointer, context, &call, times)
    values = [(v.instance, v.output, _recorded(v)) for v in sink.values]
    failures = [(f.first, (<bytes>f.second).decode()) for f in sink.failures]
    return values, failures


cdef object _recorded(RecordedValue& value):
    text = <bytes>value.bytes
    if value.view.dtype == DataType.kString:
        return text.decode()
    if value.view.dtype == DataType.kBytes:
        return text
    value.view.data = <const uint8_t*>PyBytes_AS_STRING(text)
    cdef cnp.npy_intp dims[8]
    for i in range(value.view.rank):
        dims[i] = value.view.dims[i]
    return cnp.PyArray_SimpleNewFromData(
        value.view.rank, dims, NumpyOfType(value.view.dtype), <void*>value.view.data
    ).copy()
