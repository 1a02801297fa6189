# cython: language_level=3
# distutils: language = c++
"""For the tests: the executor's side of the border to Python, recording what it is given."""

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.pycapsule cimport PyCapsule_GetContext, PyCapsule_GetPointer
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libcpp.string cimport string
from libcpp.vector cimport vector

from mindspore_serving.worker._stage_values cimport (
    DataType, PythonStageCall, PythonStageFunction, PythonStageSink, TensorView, to_python, view_value
)


cdef extern from *:
    """
    #include <algorithm>
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
      bool PutRows(uint32_t first, uint32_t count, uint32_t output, const msserving::TensorView& rows) override {
        msserving::TensorView row = rows;
        row.bytes = rows.bytes / count;
        row.rank = static_cast<uint8_t>(rows.rank - 1);
        std::copy_n(rows.dims + 1, row.rank, row.dims);
        bool all = true;
        for (uint32_t i = 0; i < count; ++i, row.data += row.bytes) {
          const auto failed = [&](const auto& failure) { return failure.first == first + i; };
          const bool taken = std::none_of(failures.begin(), failures.end(), failed) && Put(first + i, output, row);
          all = all && taken;
        }
        return all;
      }
      const msserving::PythonStageCall* Next() override { return ++calls < chained ? call : nullptr; }
      void Fail(uint32_t instance, std::string_view message) override { failures.emplace_back(instance, message); }

      std::vector<RecordedValue> values;
      std::vector<std::pair<uint32_t, std::string>> failures;
      int64_t no_memory_for = -1;
      const msserving::PythonStageCall* call = nullptr;
      int calls = 0;
      int chained = 1;
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
        const PythonStageCall* call
        int chained

    void CallFromThread(PythonStageFunction function, void* context, const PythonStageCall* call, int times) nogil


cdef const char* CAPSULE = b"msserving.python_stage"


def call_capsule(
    capsule,
    int function,
    list instances,
    int outputs,
    *,
    int batch_size=0,
    list write_back=None,
    int no_memory_for=-1,
    int times=1,
    bint stacked=False,
    int chained=1,
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
        stacked: As in the stage.
        chained: How many calls the sink has for one hold of the GIL: the same again and again.

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
    call.stacked = stacked
    sink.call = &call
    sink.chained = chained
    call.input = views.data()
    call.write_back = flags.data()
    call.sink = &sink
    with nogil:
        CallFromThread(pointer, context, &call, times)
    values = [(v.instance, v.output, _recorded(v)) for v in sink.values]
    failures = [(f.first, (<bytes>f.second).decode()) for f in sink.failures]
    return values, failures


cdef object _recorded(RecordedValue& value):
    cdef bytes data = <bytes>value.bytes
    if value.view.dtype == DataType.kBytes:
        return data
    value.view.data = <const uint8_t*>PyBytes_AS_STRING(data)
    result = to_python(&value.view)
    return result if isinstance(result, str) else result.copy()
