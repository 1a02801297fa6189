#include "session/input_rule.h"

#include <algorithm>

namespace msserving {
namespace {

std::string ListText(std::span<const int64_t> dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); ++i) {
    text += (i > 0 ? ", " : "") + std::to_string(dims[i]);
  }
  return text + "]";
}

Status Mismatch(size_t input, const char* what, const std::string& given, const std::string& defined) {
  return Status(ErrorKind::kInvalidInput, "Given model input " + std::to_string(input) + " " + what + " " + given +
                                              " not match the " + what + " " + defined + " defined in model");
}

}  // namespace

InputRule::InputRule(const TensorInfo& info, bool leading) : dtype_(info.dtype) {
  if (info.rank < 0) {
    rank_ = -1;
    return;
  }
  const int skip = leading && info.rank > 0 ? 1 : 0;
  rank_ = info.rank - skip;
  std::copy_n(info.dims.data() + skip, rank_, dims_);
  const int64_t elements = ElementCount({dims_, static_cast<size_t>(rank_)});
  fixed_ = elements >= 0;
  bytes_ = fixed_ ? static_cast<uint64_t>(elements) * ItemSize(dtype_) : 0;
}

bool InputRule::FitsDynamic(const TensorView& value) const {
  const int64_t elements = ElementCount(value.shape());
  if (elements < 0 || value.bytes != static_cast<uint64_t>(elements) * ItemSize(dtype_)) {
    return false;
  }
  if (rank_ < 0) {
    return true;
  }
  if (value.rank != rank_) {
    return false;
  }
  for (int i = 0; i < rank_; ++i) {
    if (dims_[i] >= 0 && dims_[i] != value.dims[i]) {
      return false;
    }
  }
  return true;
}

Status InputRule::Explain(size_t input, const TensorView& value) const {
  if (value.dtype != dtype_) {
    return Mismatch(input, "data type", NameOf(value.dtype), NameOf(dtype_));
  }
  if (fixed_) {
    return Mismatch(input, "size", std::to_string(value.bytes), std::to_string(bytes_));
  }
  return Mismatch(input, "shape", ListText(value.shape()), ShapeText());
}

std::string InputRule::ShapeText() const {
  return rank_ < 0 ? "of any rank" : ListText({dims_, static_cast<size_t>(rank_)});
}

}  // namespace msserving
