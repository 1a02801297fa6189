# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# distutils: language = c++
"""Requests and replies of the client, between Python values and wire bytes, without protobuf's objects in between.

The wire format is the core's own codec (csrc/protocol/predict_client_codec.h). Whatever is unusual is left to the
caller: both functions return None then, and the way through protobuf's objects finds the error or the value.
"""

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.ref cimport Py_INCREF
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy
from libcpp cimport bool as cpp_bool
from libcpp.deque cimport deque
from libcpp.string_view cimport string_view
from libcpp.vector cimport vector

cimport numpy as cnp

from mindspore_serving._native_types cimport DataType, TensorView, kMaxRank

cnp.import_array()


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

cdef extern from "protocol/predict_client_codec.h" namespace "msserving" nogil:
    cdef cppclass NamedTensor:
        string_view name
        TensorView view

    cdef cppclass ReplyError:
        int64_t code
        string_view message

    cdef cppclass ParsedReply:
        vector[vector[NamedTensor]] instances
        vector[ReplyError] errors

cdef extern from *:
    """
    #include <span>

    #include "protocol/predict_client_codec.h"
    #include "tensor/dtype.h"

    static msserving::ClientRequest MakeRequest(std::string_view servable, std::string_view method, uint64_t version,
                                                const std::vector<uint32_t>& counts,
                                                const std::vector<msserving::NamedTensor>& tensors) {
      return {servable, method, version, counts, tensors};
    }
    static size_t SizeOf(std::string_view servable, std::string_view method, uint64_t version,
                         const std::vector<uint32_t>& counts, const std::vector<msserving::NamedTensor>& tensors) {
      return msserving::SizeOfRequest(MakeRequest(servable, method, version, counts, tensors));
    }
    static void WriteTo(char* to, std::string_view servable, std::string_view method, uint64_t version,
                        const std::vector<uint32_t>& counts, const std::vector<msserving::NamedTensor>& tensors) {
      msserving::WriteRequest(MakeRequest(servable, method, version, counts, tensors), reinterpret_cast<uint8_t*>(to));
    }
    static bool Parse(const char* bytes, size_t size, msserving::ParsedReply* reply) {
      return msserving::ParseReply({reinterpret_cast<const uint8_t*>(bytes), size}, reply).ok();
    }
    """
    size_t SizeOf(string_view servable, string_view method, uint64_t version, const vector[uint32_t]& counts,
                  const vector[NamedTensor]& tensors) nogil
    void WriteTo(char* to, string_view servable, string_view method, uint64_t version, const vector[uint32_t]& counts,
                 const vector[NamedTensor]& tensors) nogil
    cpp_bool Parse(const char* bytes, size_t size, ParsedReply* reply) nogil

cdef extern from "python/numpy_types.h" namespace "msserving" nogil:
    DataType TypeOfNumpy(int number)
    int NumpyOfType(DataType dtype)


# Outputs above this size are views of the reply's bytes, which live as long as any of them.
cdef uint64_t OWN_COPY_BYTES = 4 << 10
# No protobuf message may be larger.
cdef size_t MAX_MESSAGE_BYTES = (1 << 31) - 1
cdef object NUMBER = np.number


cdef string_view text_of(object text) except *:
    """The UTF-8 of a str, kept by the str itself."""
    cdef Py_ssize_t size = 0
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    return string_view(data, <size_t>size)


cdef bint view_array(cnp.ndarray array, TensorView* view, list held) except -1:
    """Point `view` at the array, or at a copy of it in C order. False: an array that cannot be sent."""
    cdef int i
    view.dtype = TypeOfNumpy(cnp.PyArray_TYPE(array))
    if view.dtype == DataType.kUnknown or cnp.PyArray_NDIM(array) > kMaxRank:
        return False
    if not (cnp.PyArray_IS_C_CONTIGUOUS(array) and cnp.PyArray_ISNOTSWAPPED(array)):
        array = np.array(array, dtype=array.dtype.newbyteorder("="), order="C")
    held.append(array)
    view.rank = <uint8_t>cnp.PyArray_NDIM(array)
    for i in range(view.rank):
        view.dims[i] = cnp.PyArray_DIM(array, i)
    view.data = <const uint8_t*>cnp.PyArray_DATA(array)
    view.bytes = <uint64_t>cnp.PyArray_NBYTES(array)
    return True


cdef bint view_value(object value, TensorView* view, deque[uint64_t]& numbers, list held) except -1:
    """The value as it is sent. False: unusual, or not to be sent at all."""
    cdef Py_ssize_t size = 0
    cdef int overflow = 0
    cdef double real
    cdef int64_t integer
    cdef uint64_t* number
    if cnp.PyArray_Check(value):
        return view_array(value, view, held)
    # NumPy's float64 is also a float, its str_ also a str.
    if isinstance(value, NUMBER):
        return view_array(np.asarray(value), view, held)
    view.rank = 1
    view.dims[0] = 1
    if isinstance(value, str):
        view.dtype = DataType.kString
        view.data = <const uint8_t*>PyUnicode_AsUTF8AndSize(value, &size)
        view.bytes = <uint64_t>size
        held.append(value)
        return True
    if isinstance(value, bytes):
        view.dtype = DataType.kBytes
        view.data = <const uint8_t*>PyBytes_AS_STRING(value)
        view.bytes = <uint64_t>PyBytes_GET_SIZE(value)
        held.append(value)
        return True
    numbers.push_back(0)
    number = &numbers.back()
    view.data = <const uint8_t*>number
    view.bytes = 8
    if isinstance(value, bool):
        view.dtype = DataType.kBool
        view.bytes = 1
        number[0] = 1 if value else 0
        return True
    if isinstance(value, int):
        view.dtype = DataType.kInt64
        integer = PyLong_AsLongLongAndOverflow(value, &overflow)
        number[0] = <uint64_t>integer
        return overflow == 0
    if isinstance(value, float):
        view.dtype = DataType.kFloat64
        real = PyFloat_AS_DOUBLE(value)
        memcpy(number, &real, 8)
        return True
    return False


def encode(object instances, object servable, object method, uint64_t version):
    """The PredictRequest of `instances`, a list or tuple, as bytes; None if something in it is unusual."""
    cdef vector[uint32_t] counts
    cdef vector[NamedTensor] tensors
    cdef deque[uint64_t] numbers
    cdef list held = []
    cdef NamedTensor tensor
    cdef string_view servable_text = text_of(servable)
    cdef string_view method_text = text_of(method)
    cdef size_t size
    cdef bytes message
    for instance in instances:
        if not isinstance(instance, dict):
            return None
        for name, value in (<dict>instance).items():
            if not isinstance(name, str):
                return None
            tensor.name = text_of(name)
            held.append(name)
            if not view_value(value, &tensor.view, numbers, held):
                return None
            tensors.push_back(tensor)
        counts.push_back(<uint32_t>len(instance))
    size = SizeOf(servable_text, method_text, version, counts, tensors)
    if size > MAX_MESSAGE_BYTES:
        return None
    message = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
    WriteTo(PyBytes_AS_STRING(message), servable_text, method_text, version, counts, tensors)
    return message


cdef object to_python(const TensorView* view, bytes message):
    cdef cnp.npy_intp dims[8]
    cdef cnp.ndarray array
    cdef int number = NumpyOfType(view.dtype)
    cdef int i
    if view.dtype == DataType.kString:
        return PyUnicode_DecodeUTF8(<const char*>view.data, <Py_ssize_t>view.bytes, NULL)
    if view.dtype == DataType.kBytes:
        return PyBytes_FromStringAndSize(<const char*>view.data, <Py_ssize_t>view.bytes)
    for i in range(view.rank):
        dims[i] = view.dims[i]
    if view.bytes > OWN_COPY_BYTES:
        array = cnp.PyArray_SimpleNewFromData(view.rank, dims, number, <void*>view.data)
        if cnp.PyArray_ISALIGNED(array):
            Py_INCREF(message)
            cnp.PyArray_SetBaseObject(array, message)
            cnp.PyArray_CLEARFLAGS(array, cnp.NPY_ARRAY_WRITEABLE)
            return array
    array = cnp.PyArray_SimpleNew(view.rank, dims, number)
    if view.bytes > 0:
        memcpy(cnp.PyArray_DATA(array), view.data, view.bytes)
    cnp.PyArray_CLEARFLAGS(array, cnp.NPY_ARRAY_WRITEABLE)
    return array


cdef object error_of(const ReplyError& error):
    return {"error": PyUnicode_DecodeUTF8(error.message.data(), <Py_ssize_t>error.message.size(), b"replace")}


def decode(bytes message):
    """What Client.infer returns for a PredictReply; None if something in it is unusual or wrong."""
    cdef ParsedReply reply
    cdef size_t i
    cdef size_t k
    cdef NamedTensor* tensor
    cdef list results
    cdef dict outputs
    cdef str name = ""
    cdef string_view known
    if not Parse(PyBytes_AS_STRING(message), <size_t>PyBytes_GET_SIZE(message), &reply):
        return None
    if reply.errors.size() == 1 and reply.instances.empty():
        return error_of(reply.errors[0])
    if not reply.errors.empty() and reply.errors.size() != reply.instances.size():
        return None
    results = []
    for i in range(reply.instances.size()):
        if not reply.errors.empty() and reply.errors[i].code != 0:
            results.append(error_of(reply.errors[i]))
            continue
        outputs = {}
        for k in range(reply.instances[i].size()):
            tensor = &reply.instances[i][k]
            if tensor.name.size() != known.size() or memcmp(tensor.name.data(), known.data(), known.size()) != 0:
                name = PyUnicode_DecodeUTF8(tensor.name.data(), <Py_ssize_t>tensor.name.size(), NULL)
                known = tensor.name
            outputs[name] = to_python(&tensor.view, message)
        results.append(outputs)
    return results
