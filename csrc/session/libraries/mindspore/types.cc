#include "session/libraries/mindspore/types.h"

#include <algorithm>

namespace msserving::mindspore_session {
namespace {

std::string ShapeText(const int64_t* dims, size_t rank) {
  std::string text = "[";
  for (size_t i = 0; i < rank; ++i) text += (i ? ", " : "") + std::to_string(dims[i]);
  return text + "]";
}

}  // namespace

bool TensorSpec::IsStatic() const {
  return !dynamic_rank && std::all_of(dims.begin(), dims.end(), [](int64_t dim) { return dim >= 0; });
}

uint64_t TensorSpec::Bytes() const {
  uint64_t bytes = ElementSize(dtype);
  for (const int64_t dim : dims) bytes *= static_cast<uint64_t>(dim);
  return bytes;
}

std::string TensorSpec::ToString() const {
  return "type " + std::to_string(dtype) + (dynamic_rank ? " [...]" : " " + ShapeText(dims.data(), dims.size()));
}

MsServingTensorInfo TensorSpec::ToInfo() const {
  MsServingTensorInfo info{};
  info.name = name.c_str();
  info.dtype = dtype;
  if (dims.size() > MS_SERVING_SESSION_MAX_RANK) {
    throw std::runtime_error("a tensor of rank " + std::to_string(dims.size()) + " cannot be served (at most " +
                             std::to_string(MS_SERVING_SESSION_MAX_RANK) + ")");
  }
  info.rank = dynamic_rank ? -1 : static_cast<int32_t>(dims.size());
  std::copy(dims.begin(), dims.end(), info.dims);
  return info;
}

void CheckFits(const TensorSpec& spec, const MsServingTensor& tensor, size_t index) {
  bool fits = tensor.dtype == spec.dtype && tensor.rank >= 0 && tensor.rank <= MS_SERVING_SESSION_MAX_RANK;
  uint64_t bytes = ElementSize(tensor.dtype);
  for (int32_t d = 0; fits && d < tensor.rank; ++d) {
    fits = tensor.dims[d] >= 0;
    bytes *= static_cast<uint64_t>(tensor.dims[d]);
  }
  fits = fits && bytes == tensor.bytes;
  if (fits && !spec.dynamic_rank) {
    fits = static_cast<size_t>(tensor.rank) == spec.dims.size();
    for (size_t d = 0; fits && d < spec.dims.size(); ++d) fits = spec.dims[d] < 0 || spec.dims[d] == tensor.dims[d];
  }
  if (fits) return;
  const size_t rank = static_cast<size_t>(std::clamp<int32_t>(tensor.rank, 0, MS_SERVING_SESSION_MAX_RANK));
  throw std::runtime_error("input " + std::to_string(index) + " (" + spec.name + ") wants " + spec.ToString() +
                           ", but was given type " + std::to_string(tensor.dtype) + " " + ShapeText(tensor.dims, rank) +
                           " of " + std::to_string(tensor.bytes) + " bytes");
}

void Describe(const TensorSpec& spec, MsServingTensor* tensor) {
  tensor->dtype = spec.dtype;
  tensor->bytes = spec.Bytes();
  tensor->rank = static_cast<int32_t>(spec.dims.size());
  std::copy(spec.dims.begin(), spec.dims.end(), tensor->dims);
}

uint64_t ElementSize(int32_t dtype) {
  constexpr uint8_t kSizes[] = {0, 1, 1, 1, 2, 2, 4, 4, 8, 8, 2, 4, 8};
  return dtype > 0 && dtype < static_cast<int32_t>(sizeof(kSizes)) ? kSizes[dtype] : 0;
}

}  // namespace msserving::mindspore_session
