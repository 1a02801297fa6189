// Whether a thread that has run out of work should look for more for a moment before it blocks. Being woken takes a
// processor that sleeps tens of microseconds (more in a virtual machine), which a thread that still looks does not pay.
#pragma once

#include <cstdint>

#include "base/clock.h"

namespace msserving {

// Learns from the waits of one thread, of one kind. Looking begins when waits in a row have been short enough for it,
// and ends when some have not: with more than one long wait in five the gate stays shut. Each time it has to be
// shut again, it wants to see more before it opens: who waits a little longer than the limit each time costs nothing in
// the long run. What it may cost is so at most `limit_ns` for a long wait, a few times in a row.
// Not thread-safe. Reads no clock.
class SpinGate {
 public:
  // What blocking adds to a wait by itself: a wait of so much more than the limit may be a short one.
  static constexpr int64_t kWakeUpNs = 50 * kNanosPerMicro;
  static constexpr uint32_t kFewest = 8;    // short waits in a row that open the gate at first
  static constexpr uint32_t kMost = 8192;   // and at most, after it had to be shut again and again
  static constexpr uint32_t kTrusted = 64;  // short waits through an open gate after which kFewest hold again
  static constexpr int kCredit = 16;        // of an open gate: what long waits are taken from
  static constexpr int kLongWaitCosts = 4;  // and a short one gives back one

  // 0: never.
  explicit SpinGate(int64_t limit_ns = 0) : limit_ns_(limit_ns) {}

  // How long the wait that begins now may be spent looking; 0: block at once.
  int64_t budget_ns() const { return open_ ? limit_ns_ : 0; }

  // The wait that budget_ns() was asked for has ended, after `waited_ns`. `blocked`: in the kernel, at last.
  void OnWait(int64_t waited_ns, bool blocked);

 private:
  void OnShort();
  void OnLong();

  int64_t limit_ns_;
  bool open_ = false;
  int credit_ = 0;
  uint32_t in_a_row_ = 0;  // short waits
  uint32_t wanted_ = kFewest;
};

}  // namespace msserving
