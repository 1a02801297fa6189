#include "tensor/tensor_view.h"

namespace msserving {

int64_t ElementCount(std::span<const int64_t> dims) {
  int64_t count = 1;
  for (const int64_t dim : dims) {
    if (dim < 0 || __builtin_mul_overflow(count, dim, &count)) {
      return -1;
    }
  }
  return count;
}

}  // namespace msserving
