// Which instances of a Python stage's call can be handed over as stacked arrays, and when that needs no copy. One rule
// for both sides of the border: the executor prepares memory by it, the runner makes arrays by it. Pure functions.
#pragma once

#include <algorithm>
#include <cstdint>

#include "worker/python_stage.h"

namespace msserving {

// Values that can be rows of one array; text goes into lists, whatever its length.
inline bool SameRow(const TensorView& a, const TensorView& b) {
  if (a.dtype != b.dtype) {
    return false;
  }
  return IsText(a.dtype) || (a.rank == b.rank && std::equal(a.dims, a.dims + a.rank, b.dims));
}

// The end of the instances from `first` on, at most call.batch_size, whose inputs agree in type and shape.
inline uint32_t StackEnd(const PythonStageCall& call, uint32_t first) {
  const uint32_t end = std::min(call.instances, first + std::min(call.batch_size, call.instances - first));
  const TensorView* leader = call.input + uint64_t{first} * call.inputs;
  for (uint32_t i = first + 1; i < end; ++i) {
    const TensorView* other = call.input + uint64_t{i} * call.inputs;
    if (!std::equal(leader, leader + call.inputs, other, SameRow)) {
      return i;
    }
  }
  return end;
}

// The distance in bytes between neighbouring rows of input `input` of instances first to end - 1, which agree in type
// and shape, if an array can lie over them as they are; 0: it cannot.
inline uint64_t RowDistance(const PythonStageCall& call, uint32_t first, uint32_t end, uint32_t input) {
  const TensorView* row = call.input + uint64_t{first} * call.inputs + input;
  const uint64_t item = ItemSize(row->dtype);
  if (item == 0 || row->bytes == 0 || reinterpret_cast<uintptr_t>(row->data) % item != 0) {
    return 0;
  }
  uint64_t distance = row->bytes;
  for (uint32_t i = first + 1; i < end; ++i, row += call.inputs) {
    const TensorView* next = row + call.inputs;
    const auto here = reinterpret_cast<uintptr_t>(row->data);
    const auto there = reinterpret_cast<uintptr_t>(next->data);
    if (i == first + 1) {
      distance = there - here;
    }
    if (there <= here || there - here != distance || distance < row->bytes || distance % item != 0) {
      return 0;
    }
  }
  return distance;
}

// Input `input` of these instances is a copy of its rows, not a view of them.
inline bool StackIsCopied(const PythonStageCall& call, uint32_t first, uint32_t end, uint32_t input) {
  const TensorView& row = call.input[uint64_t{first} * call.inputs + input];
  return row.bytes * (end - first) <= kOwnCopyBytes || RowDistance(call, first, end, input) == 0;
}

}  // namespace msserving
