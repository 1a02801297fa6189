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

from mindspore_serving.worker.stage_errors import ResultError, describe_error, name_of

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.pycapsule cimport PyCapsule_New, PyCapsule_SetContext
from libc.stdint cimport uint32_t
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

from mindspore_serving.worker._stage_values cimport (
    PythonStageCall,
    StackEnd,
    TensorView,
    make_arguments,
    stack_arguments,
    view_results,
    view_rows,
    view_value,
    write_back,
    write_stack_back,
)

cdef extern from *:
    """
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
    """
    void KeepPythonThreadState() nogil


cdef const char* CAPSULE = b"msserving.python_stage"
cdef double LOG_INTERVAL_S = 1.0


cdef class StageRunner:
    """Knows the functions of a servable and calls them. Add all functions before the executor starts.

    Args:
        servable_directory (str): Where users' own code lies; frames there are the ones that error texts point to.

    Attributes:
        holds (int): How often the GIL was taken to run stages.
    """

    cdef readonly unsigned long long holds
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
        cdef vector[TensorView] views
        self.holds += 1
        try:
            while call != NULL:
                views.resize(call.outputs)
                self.run_call(call, self.functions[call.function], views)
                call = call.sink.Next()
        except BaseException:  # a defect of this module: users' exceptions are caught where they belong to an instance
            traceback.print_exc()
            os.abort()

    cdef int run_call(self, const PythonStageCall* call, object function, vector[TensorView]& views) except -1:
        cdef uint32_t i = 0
        cdef uint32_t end
        if call.batch_size == 0:
            for i in range(call.instances):
                self.run_instance(call, function, i, views)
            return 0
        while i < call.instances:
            if call.stacked:
                end = StackEnd(call[0], i)
                self.run_stack(call, function, i, end, views)
            else:
                end = i + min(call.batch_size, call.instances - i)
                self.run_group(call, function, i, end, views)
            i = end
        return 0

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

    cdef int run_stack(
        self, const PythonStageCall* call, object function, uint32_t first, uint32_t end, vector[TensorView]& views
    ) except -1:
        """Instances first to end - 1, which agree in types and shapes, in one call with stacked arrays."""
        cdef uint32_t i
        try:
            values = stack_arguments(call, first, end)
            call.sink.Enter(first, end - first)
            result = function(*values)
        except BaseException as error:
            if end - first == 1:
                self.fail(call, first, error)
                return 0
            for i in range(first, end):  # which of them it was, each alone will show
                self.run_stack(call, function, i, i + 1, views)
            return 0
        return self.finish_stack(call, first, end, values, result, views)

    cdef int finish_stack(
        self,
        const PythonStageCall* call,
        uint32_t first,
        uint32_t end,
        tuple values,
        object result,
        vector[TensorView]& views,
    ) except -1:
        """Hand over the outputs: of each instance all or none."""
        cdef uint32_t count = end - first
        cdef uint32_t output
        cdef uint32_t i
        cdef list held = []
        cdef dict failed = {}
        cdef vector[TensorView] single
        cdef tuple outputs = result if isinstance(result, tuple) else (result,)
        try:
            if <uint32_t>len(outputs) != call.outputs:
                raise ResultError(
                    f"it returned {len(outputs)} output(s), but the method takes {call.outputs} from it, each an array "
                    "with a row for each instance"
                )
            for output in range(call.outputs):
                if not isinstance(outputs[output], list):
                    view_rows(outputs[output], count, &views[output], held)
                elif <uint32_t>len(outputs[output]) != count:
                    raise ResultError(f"an output has {len(outputs[output])} value(s) for {count} instance(s)")
        except BaseException as error:
            for i in range(first, end):
                self.fail(call, i, error)
            return 0
        single.resize(<size_t>count * call.outputs)
        for output in range(call.outputs):
            if isinstance(outputs[output], list):
                for i in range(count):
                    try:
                        view_value(outputs[output][i], &single[<size_t>output * count + i], held)
                    except BaseException as error:
                        failed.setdefault(i, error)
        for i, error in failed.items():
            self.fail(call, first + i, error)
        for output in range(call.outputs):
            if not isinstance(outputs[output], list):
                call.sink.PutRows(first, count, output, views[output])
                continue
            for i in range(count):
                if i not in failed:
                    call.sink.Put(first + i, output, single[<size_t>output * count + i])
        write_stack_back(call, first, end, values)
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
            self.log_failure(function, error)
        return 0

    cdef int log_failure(self, object function, object error) except -1:
        try:
            lines = traceback.format_exception(type(error), error, error.__traceback__)
            print(f"Function {name_of(function)} failed:\n{''.join(lines)}", file=sys.stderr, end="", flush=True)
        except BaseException:  # sys.stderr is the user's to replace: closed, without flush, or raising what it likes
            pass
        return 0


cdef void run_stage(void* context, const PythonStageCall* call) noexcept nogil:
    KeepPythonThreadState()
    with gil:
        (<StageRunner>context).run(call)
