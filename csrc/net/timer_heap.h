// Timers in a binary heap whose entries know their place, so that cancelling is O(log n) and leaves nothing behind:
// most deadlines are cancelled, long before they are due.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/clock.h"

namespace msserving {

// One thread. Ids are never 0, and an old id never names a newer timer (until 2^32 timers have used one slot).
class TimerHeap {
 public:
  uint64_t Add(int64_t at_ns, std::function<void()> function);
  // Unknown and fired ids are ignored.
  void Cancel(uint64_t id);
  int64_t next_ns() const { return heap_.empty() ? kNoDeadline : heap_.front().at_ns; }

  // PopDue() stops at timers added after this call.
  void BeginRound() { round_ = next_sequence_; }
  // The next due timer's function, removed; null if there is none. In the order of their times; equal times: in the
  // order of adding.
  std::function<void()> PopDue(int64_t now_ns);

 private:
  struct Entry {
    int64_t at_ns;
    uint64_t sequence;
    uint32_t slot;
    bool Before(const Entry& other) const {
      return at_ns != other.at_ns ? at_ns < other.at_ns : sequence < other.sequence;
    }
  };
  struct Slot {
    std::function<void()> function;
    uint32_t generation = 1;
    uint32_t place = kFree;
  };
  static constexpr uint32_t kFree = UINT32_MAX;

  void Put(size_t place, const Entry& entry);
  void SiftUp(size_t place);
  void SiftDown(size_t place);
  std::function<void()> RemoveAt(size_t place);

  std::vector<Entry> heap_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  uint64_t next_sequence_ = 0;
  uint64_t round_ = 0;
};

}  // namespace msserving
