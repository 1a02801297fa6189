// What one instance must supply for one input of a graph. Checked by the core before anything runs, because
// MindSpore itself checks neither shapes nor element types.
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"
#include "session/session.h"
#include "tensor/tensor_view.h"

namespace msserving {

class InputRule {
 public:
  InputRule() = default;
  // `leading`: the graph's leading dimension is the batch, which an instance does not have.
  InputRule(const TensorInfo& info, bool leading);

  // A fixed shape takes any shape of the same element count, as a reshape; a dynamic one must fit dimension by
  // dimension.
  bool Fits(const TensorView& value) const {
    if (value.dtype != dtype_) {
      return false;
    }
    return fixed_ ? value.bytes == bytes_ : FitsDynamic(value);
  }
  // Why a value that does not fit does not, as "Given model input I size A not match the size B defined in model".
  Status Explain(size_t input, const TensorView& value) const;

  bool fixed() const { return fixed_; }
  DataType dtype() const { return dtype_; }
  uint64_t bytes() const { return bytes_; }  // of a fixed shape
  int rank() const { return rank_; }
  const int64_t* dims() const { return dims_; }

 private:
  bool FitsDynamic(const TensorView& value) const;
  std::string ShapeText() const;

  DataType dtype_ = DataType::kUnknown;
  bool fixed_ = false;
  int rank_ = 0;
  uint64_t bytes_ = 0;
  int64_t dims_[kMaxRank] = {};
};

}  // namespace msserving
