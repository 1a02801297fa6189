// Bodies and tensors for tests of the JSON parts.
#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "net/buffer.h"
#include "tensor/tensor_view.h"

namespace msserving {

// A copy of the text with the padding that parsers want, filled with something that must not be read as content.
class PaddedText {
 public:
  explicit PaddedText(std::string_view text) : memory_(text.size() + Buffer::kPadding, '1'), size_(text.size()) {
    std::memcpy(memory_.data(), text.data(), text.size());
  }
  std::span<const uint8_t> bytes() const { return {memory_.data(), size_}; }

 private:
  std::vector<uint8_t> memory_;
  size_t size_;
};

template <class T>
std::vector<T> ValuesOf(const TensorView& tensor) {
  std::vector<T> values(tensor.bytes / sizeof(T));
  std::memcpy(values.data(), tensor.data, values.size() * sizeof(T));
  return values;
}

inline std::vector<int64_t> DimsOf(const TensorView& tensor) { return {tensor.dims, tensor.dims + tensor.rank}; }
inline std::string TextOf(const TensorView& tensor) {
  return {reinterpret_cast<const char*>(tensor.data), tensor.bytes};
}

template <class T>
TensorView TensorOf(DataType type, const std::vector<T>& values, const std::vector<int64_t>& dims) {
  TensorView tensor;
  tensor.data = reinterpret_cast<const uint8_t*>(values.data());
  tensor.bytes = values.size() * sizeof(T);
  tensor.dtype = type;
  tensor.rank = static_cast<uint8_t>(dims.size());
  std::copy(dims.begin(), dims.end(), tensor.dims);
  return tensor;
}

inline TensorView TensorOf(DataType type, std::string_view text, const std::vector<int64_t>& dims = {}) {
  TensorView tensor;
  tensor.data = reinterpret_cast<const uint8_t*>(text.data());
  tensor.bytes = text.size();
  tensor.dtype = type;
  tensor.rank = static_cast<uint8_t>(dims.size());
  std::copy(dims.begin(), dims.end(), tensor.dims);
  return tensor;
}

}  // namespace msserving
