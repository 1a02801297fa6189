// A tensor somewhere in memory that somebody else owns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tensor/dtype.h"

namespace msserving {

inline constexpr int kMaxRank = 8;

// Plain and trivially copyable; only the first `rank` entries of dims mean anything.
// A string or bytes tensor is exactly one element: `data` is its text, dims are [] or [1].
struct TensorView {
  TensorView() {}  // leaves `dims` alone, in vectors too, which would set the whole of a defaulted one to zero
  const uint8_t* data = nullptr;
  uint64_t bytes = 0;
  DataType dtype = DataType::kUnknown;
  uint8_t rank = 0;
  int64_t dims[kMaxRank];

  std::span<const int64_t> shape() const { return {dims, rank}; }
};

// Product of dims, or -1 if a dimension is negative or the product does not fit in 63 bits.
inline int64_t ElementCount(std::span<const int64_t> dims) {
  int64_t count = 1;
  for (const int64_t dim : dims) {
    if (dim < 0 || __builtin_mul_overflow(count, dim, &count)) {
      return -1;
    }
  }
  return count;
}

}  // namespace msserving
