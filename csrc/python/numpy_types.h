// Element types by NumPy's type numbers, and back, for the Cython modules. Include after numpy/arrayobject.h.
#pragma once

#include <cstddef>

#include "tensor/dtype.h"

namespace msserving {

// kUnknown if there is none.
inline DataType TypeOfNumpy(int number) {
  using enum DataType;
  constexpr DataType kTypes[] = {kBool,  kInt8,   kUint8, kInt16,  kUint16,  kInt32,  kUint32,
                                 kInt64, kUint64, kInt64, kUint64, kFloat32, kFloat64};
  static_assert(NPY_BOOL == 0 && NPY_LONG == 7 && NPY_LONGLONG == 9 && NPY_DOUBLE == 12 && sizeof(long) == 8);
  if (number >= 0 && number <= NPY_DOUBLE) {
    return kTypes[number];
  }
  return number == NPY_HALF ? kFloat16 : kUnknown;
}

// -1 for text and unknown types.
inline int NumpyOfType(DataType type) {
  constexpr int kNumbers[kDataTypeCount] = {-1,          NPY_BOOL,    NPY_INT8,    NPY_UINT8, NPY_INT16,
                                            NPY_UINT16,  NPY_INT32,   NPY_UINT32,  NPY_INT64, NPY_UINT64,
                                            NPY_FLOAT16, NPY_FLOAT32, NPY_FLOAT64, -1,        -1};
  const auto i = static_cast<size_t>(type);
  return i < kDataTypeCount ? kNumbers[i] : -1;
}

}  // namespace msserving
