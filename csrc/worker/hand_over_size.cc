#include "worker/hand_over_size.h"

#include <algorithm>

namespace msserving {

void HandOverSize::Adapt(size_t instances, int64_t run_ns) {
  if (!adapts() || instances == 0) {
    return;
  }
  const int64_t each_ns = std::max<int64_t>(1, run_ns / static_cast<int64_t>(instances));
  const int64_t fitting = std::min<int64_t>(hand_over_ns_ / each_ns, most_);
  const int64_t wanted = std::min<int64_t>(fitting, int64_t{now_} * 2);
  now_ = std::max(fewest_, static_cast<uint32_t>(wanted));
}

}  // namespace msserving
