"""The native side's types, and the conversions that the runner uses."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libcpp cimport bool as cpp_bool
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

from mindspore_serving._native_types cimport DataType, TensorView, kMaxRank


cdef extern from "worker/python_stage.h" namespace "msserving" nogil:
    cdef cppclass PythonStageSink:
        void Enter(uint32_t first, uint32_t count)
        cpp_bool Put(uint32_t instance, uint32_t output, const TensorView& value)
        cpp_bool PutRows(uint32_t first, uint32_t count, uint32_t output, const TensorView& rows)
        void Fail(uint32_t instance, string_view message)
        const PythonStageCall* Next()

    cdef cppclass PythonStageCall:
        uint32_t function
        uint32_t instances
        uint32_t inputs
        uint32_t outputs
        uint32_t batch_size
        cpp_bool stacked
        const TensorView* input
        const uint8_t* write_back
        PythonStageSink* sink

    ctypedef void (*PythonStageFunction)(void* context, const PythonStageCall* call)
    const uint64_t kOwnCopyBytes

cdef extern from "worker/stacked_rows.h" namespace "msserving" nogil:
    uint32_t StackEnd(const PythonStageCall& call, uint32_t first)
    uint64_t RowDistance(const PythonStageCall& call, uint32_t first, uint32_t end, uint32_t input)
    cpp_bool StackIsCopied(const PythonStageCall& call, uint32_t first, uint32_t end, uint32_t input)


cdef object to_python(const TensorView* view)
cdef tuple make_arguments(const PythonStageCall* call, uint32_t instance)
cdef tuple stack_arguments(const PythonStageCall* call, uint32_t first, uint32_t end)
cdef void write_back(const PythonStageCall* call, uint32_t instance, tuple values)
cdef void write_stack_back(const PythonStageCall* call, uint32_t first, uint32_t end, tuple values)
cdef int view_value(object value, TensorView* view, list held) except -1
cdef int view_rows(object value, uint32_t count, TensorView* view, list held) except -1
cdef int view_results(object result, uint32_t outputs, vector[TensorView]& views, list held) except -1
