// Tensors of the session ABI for tests of session libraries.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "mindspore_serving/session.h"
#include "tensor/dtype.h"

namespace msserving {

// A tensor with storage of its own, aligned as the ABI promises.
template <typename T>
struct Tensor {
  Tensor(DataType dtype, const std::vector<int64_t>& dims, const std::vector<T>& values)
      : Tensor(static_cast<int32_t>(dtype), dims, values) {}
  // The element type as the ABI numbers it.
  Tensor(int32_t dtype, const std::vector<int64_t>& dims, const std::vector<T>& values) {
    view.data = storage;
    view.bytes = values.size() * sizeof(T);
    view.dtype = dtype;
    for (const int64_t dim : dims) view.dims[view.rank++] = dim;
    std::memcpy(storage, values.data(), view.bytes);
  }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  alignas(MS_SERVING_SESSION_ALIGNMENT) unsigned char storage[1024];
  MsServingTensor view{};
};

template <typename T>
std::vector<T> Values(const MsServingTensor& tensor) {
  std::vector<T> values(tensor.bytes / sizeof(T));
  std::memcpy(values.data(), tensor.data, tensor.bytes);
  return values;
}

}  // namespace msserving
