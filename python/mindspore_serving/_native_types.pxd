"""Tensors of the native side, as Cython modules see them."""

from libc.stdint cimport int64_t, uint8_t, uint64_t


cdef extern from "tensor/dtype.h" namespace "msserving" nogil:
    cdef enum class DataType(uint8_t):
        kUnknown
        kBool
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
