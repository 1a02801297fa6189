// The built-in arg-max of a flat tensor.
#pragma once

#include "base/error.h"
#include "tensor/tensor_view.h"

namespace msserving {

// The position of the largest element (the first of equals; NaN counts as the largest, as NumPy has it) of any numeric
// or bool tensor with at least one element.
Status Argmax(const TensorView& value, int64_t* position);

}  // namespace msserving
