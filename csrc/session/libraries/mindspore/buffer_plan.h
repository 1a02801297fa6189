// Where the tensors of a graph lie in one block of memory. Knows nothing of MindSpore.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace msserving::mindspore_session {

// A tensor is alive from step `first` to step `last`, both included.
struct Lifetime {
  size_t bytes = 0;
  size_t first = 0;
  size_t last = 0;
};

struct BufferPlan {
  std::vector<size_t> offsets;  // one a lifetime, multiples of the alignment
  size_t bytes = 0;             // of the whole block
};

// Tensors alive at the same step never overlap. Placed by falling size, each into the smallest gap that holds it
// between the tensors that live at the same time, else behind them. O(n²) in the number of tensors.
inline BufferPlan PlanBuffers(const std::vector<Lifetime>& lifetimes, size_t alignment) {
  const auto rounded = [alignment](size_t bytes) {
    return std::max<size_t>((bytes + alignment - 1) / alignment, 1) * alignment;
  };
  BufferPlan plan;
  plan.offsets.resize(lifetimes.size());
  std::vector<size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });
  std::vector<size_t> placed;  // by rising offset
  for (const size_t index : order) {
    const Lifetime& wanted = lifetimes[index];
    const size_t bytes = rounded(wanted.bytes);
    size_t end = 0;  // of what is placed so far and alive at the same time
    size_t best = SIZE_MAX;
    size_t best_gap = SIZE_MAX;
    for (const size_t other : placed) {
      if (lifetimes[other].last < wanted.first || wanted.last < lifetimes[other].first) continue;
      const size_t offset = plan.offsets[other];
      if (offset > end && offset - end >= bytes && offset - end < best_gap) {
        best = end;
        best_gap = offset - end;
      }
      end = std::max(end, offset + rounded(lifetimes[other].bytes));
    }
    plan.offsets[index] = best != SIZE_MAX ? best : end;
    plan.bytes = std::max(plan.bytes, plan.offsets[index] + bytes);
    const auto place = std::upper_bound(placed.begin(), placed.end(), plan.offsets[index],
                                        [&](size_t offset, size_t other) { return offset < plan.offsets[other]; });
    placed.insert(place, index);
  }
  return plan;
}

}  // namespace msserving::mindspore_session
