# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# distutils: language = c++
"""Tensors as users' functions see them, and what functions return as tensors."""

import numpy as np

from mindspore_serving.worker.stage_errors import ResultError

from cpython.bool cimport PyBool_Check
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_AS_DOUBLE, PyFloat_CheckExact
from cpython.long cimport PyLong_Check
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_Check, PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp.vector cimport vector

cimport numpy as cnp

cnp.import_array()


cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

cdef extern from "python/numpy_types.h" namespace "msserving" nogil:
    DataType TypeOfNumpy(int number)
    int NumpyOfType(DataType dtype)

cdef extern from "tensor/dtype.h" namespace "msserving" nogil:
    size_t ItemSize(DataType dtype)



cdef object to_python(const TensorView* view):
    """A value as user code sees it: str for text, otherwise an array (bytes as uint8)."""
    cdef cnp.npy_intp dims[8]
    cdef int rank = view.rank
    cdef int number = NumpyOfType(view.dtype)
    cdef int i
    cdef cnp.ndarray array
    if view.dtype == DataType.kString:
        return PyUnicode_DecodeUTF8(<const char*>view.data, <Py_ssize_t>view.bytes, NULL)
    if view.dtype == DataType.kBytes:
        rank = 1
        dims[0] = <cnp.npy_intp>view.bytes
        number = cnp.NPY_UINT8
    else:
        for i in range(rank):
            dims[i] = view.dims[i]
    if number < 0:
        raise ResultError("an input has an unknown data type")
    if view.bytes > kOwnCopyBytes:
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
        if call.write_back[i] and view[i].dtype != DataType.kString and view[i].bytes <= kOwnCopyBytes:
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


cdef cnp.ndarray stack_input(const PythonStageCall* call, uint32_t first, uint32_t end, uint32_t number):
    """An input of instances that agree in its type and shape, as one array: over their memory, or of its own."""
    cdef const TensorView* row = call.input + <uint64_t>first * call.inputs + number
    cdef cnp.npy_intp dims[9]
    cdef cnp.npy_intp strides[9]
    cdef int rank = row.rank
    cdef int numpy_type = NumpyOfType(row.dtype)
    cdef cnp.ndarray array
    cdef uint8_t* to
    cdef uint32_t i
    cdef int k
    if numpy_type < 0:
        raise ResultError("an input has an unknown data type")
    dims[0] = end - first
    for k in range(rank):
        dims[k + 1] = row.dims[k]
    if not StackIsCopied(call[0], first, end, number):
        strides[0] = <cnp.npy_intp>RowDistance(call[0], first, end, number)
        strides[rank] = <cnp.npy_intp>ItemSize(row.dtype) if rank > 0 else strides[0]
        for k in range(rank - 1, 0, -1):
            strides[k] = strides[k + 1] * dims[k + 1]
        return cnp.PyArray_New(
            cnp.ndarray, rank + 1, dims, numpy_type, strides, <void*>row.data, 0, cnp.NPY_ARRAY_WRITEABLE, None
        )
    array = cnp.PyArray_SimpleNew(rank + 1, dims, numpy_type)
    to = <uint8_t*>cnp.PyArray_DATA(array)
    if RowDistance(call[0], first, end, number) == row.bytes:
        memcpy(to, row.data, row.bytes * (end - first))
        return array
    for i in range(end - first):
        memcpy(to + i * row.bytes, row[<uint64_t>i * call.inputs].data, row.bytes)
    return array


cdef tuple stack_arguments(const PythonStageCall* call, uint32_t first, uint32_t end):
    """One array for each input, with a row for each instance; of text a list."""
    cdef const TensorView* row = call.input + <uint64_t>first * call.inputs
    cdef tuple values = PyTuple_New(call.inputs)
    cdef object value
    cdef uint32_t number
    cdef uint32_t i
    for number in range(call.inputs):
        if row[number].dtype == DataType.kString or row[number].dtype == DataType.kBytes:
            value = [to_python(row + <uint64_t>i * call.inputs + number) for i in range(end - first)]
        else:
            value = stack_input(call, first, end, number)
        Py_INCREF(value)  # PyTuple_SET_ITEM takes over a reference
        PyTuple_SET_ITEM(values, number, value)
    return values


cdef void write_stack_back(const PythonStageCall* call, uint32_t first, uint32_t end, tuple values):
    """As write_back, for stacked arrays."""
    cdef const TensorView* row = call.input + <uint64_t>first * call.inputs
    cdef const TensorView* view
    cdef cnp.ndarray array
    cdef uint64_t bytes
    cdef uint32_t number
    cdef uint32_t i
    for number in range(call.inputs):
        bytes = row[number].bytes
        if not call.write_back[number] or row[number].dtype == DataType.kString:
            continue
        if row[number].dtype == DataType.kBytes:
            for i in range(end - first):
                view = row + <uint64_t>i * call.inputs + number
                array = values[number][i]
                if view.bytes <= kOwnCopyBytes and <uint64_t>cnp.PyArray_NBYTES(array) == view.bytes:
                    memcpy(<void*>view.data, cnp.PyArray_DATA(array), view.bytes)
            continue
        array = values[number]
        if (
            StackIsCopied(call[0], first, end, number)
            and <uint64_t>cnp.PyArray_NBYTES(array) == bytes * (end - first)
            and cnp.PyArray_IS_C_CONTIGUOUS(array)
        ):
            for i in range(end - first):
                memcpy(<void*>row[<uint64_t>i * call.inputs + number].data,
                       <const uint8_t*>cnp.PyArray_DATA(array) + i * bytes, bytes)


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


cdef int view_rows(object value, uint32_t count, TensorView* view, list held) except -1:
    """Point `view` at an output of a function that takes stacked arrays: a row for each of `count` instances."""
    if isinstance(value, (str, bytes)) or value is None:
        raise ResultError(
            f"an output is {'None' if value is None else 'a ' + type(value).__name__}; it should be an array with a "
            f"row, or a list with a value, for each of {count} instances"
        )
    if not cnp.PyArray_Check(value):
        view_other(value, view, held)
    else:
        view_array(value, view, held)
    if view.rank == 0 or view.dims[0] != count:
        shape = tuple([view.dims[i] for i in range(view.rank)])
        raise ResultError(
            f"an output has the shape {shape}; its first dimension should be {count}, one row for each instance"
        )
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
