#include "base/spin_gate.h"

#include <algorithm>

namespace msserving {

void SpinGate::OnWait(int64_t waited_ns, bool blocked) {
  if (limit_ns_ == 0) {
    return;
  }
  // Behind an open gate, to have blocked is to have looked in vain.
  const bool is_short = open_ ? !blocked && waited_ns <= limit_ns_ : waited_ns <= limit_ns_ + kWakeUpNs;
  is_short ? OnShort() : OnLong();
}

void SpinGate::OnShort() {
  ++in_a_row_;
  if (open_) {
    credit_ = std::min(credit_ + 1, kCredit);
    if (in_a_row_ >= kTrusted) {
      wanted_ = kFewest;
    }
  } else if (in_a_row_ >= wanted_) {
    open_ = true;
    credit_ = 2 * kLongWaitCosts;
    in_a_row_ = 0;
  }
}

void SpinGate::OnLong() {
  in_a_row_ = 0;
  if (!open_) {
    return;
  }
  credit_ -= kLongWaitCosts;
  if (credit_ <= 0) {
    open_ = false;
    wanted_ = std::min(wanted_ * 4, kMost);
  }
}

}  // namespace msserving
