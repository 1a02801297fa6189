// The queue in front of one stage: it decides when a batch is closed and what goes into it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/clock.h"

namespace msserving {

// What is queued embeds this. An item is in at most one queue; the queue owns nothing.
struct BatchItem {
  BatchItem* next = nullptr;
  int64_t queued_ns = 0;                             // set by whoever calls Push()
  int64_t deadline_ns = kNoDeadline;                 // expired items are dropped when a batch is closed
  const std::atomic<uint32_t>* cancelled = nullptr;  // may be null; nonzero: dropped likewise
  bool alone = false;                                // shares its batch with nobody
};

struct BatchPolicy {
  uint32_t max_batch = 1;   // at least 1
  int64_t max_wait_us = 0;  // how long an idle device may wait for a fuller batch; 0: not at all
};

// Why a batch was closed.
enum class BatchRelease : uint8_t {
  kFull,      // max_batch items were there
  kIdle,      // the device was free and nothing is to be waited for
  kWaited,    // the oldest item has waited max_wait_us
  kDeadline,  // an item's deadline lies before the end of the wait
  kDrain,     // the worker is stopping
  kCount,     // number of reasons, not a reason
};

// Pure logic, no thread of its own: not thread-safe, its owner locks. Every call is O(1) an item and allocates
// nothing. Take() is for when the stage's lane is free: with max_wait_us 0 it then always gives what is there, so no
// idle device waits; otherwise an item waits at most max_wait_us beyond the runs before it, and an item that cannot
// wait that long (its deadline is nearer) is not made to.
class BatchQueue {
 public:
  BatchQueue(BatchPolicy policy, const Clock& clock);

  void Push(BatchItem* item);

  // Take() would close a batch now.
  bool Ready() const;
  // When Ready() becomes true by itself: a time that may have passed, kNoDeadline if the queue is empty.
  int64_t ReadyAtNs() const;

  struct Batch {
    size_t count = 0;              // items written
    BatchItem* expired = nullptr;  // deadline passed while queued; chained by next
    BatchItem* cancelled = nullptr;
  };
  // Closes a batch: oldest first, at most max_batch items (`items` has that much room), before or after an item that
  // goes alone. Nothing at all if !Ready().
  // A batch may come out empty when everything had expired or was cancelled.
  Batch Take(std::span<BatchItem*> items);
  // With a max_batch of 1: up to items.size() batches in one, for a consumer that runs them in turns. What goes alone
  // is the only one.
  Batch TakeSingly(std::span<BatchItem*> items);

  // From now on nothing is waited for.
  void Drain() { draining_ = true; }

  size_t size() const { return size_; }
  uint32_t max_batch() const { return policy_.max_batch; }
  BatchItem* oldest() const { return head_; }
  // Batches with at least one item, by reason.
  uint64_t releases(BatchRelease reason) const { return releases_[static_cast<size_t>(reason)]; }

 private:
  Batch TakeUpTo(std::span<BatchItem*> items, int64_t now_ns);
  int64_t ReadOnce(int64_t* now_ns) const;
  BatchItem* Pop();
  BatchRelease Reason(int64_t now_ns) const;
  void FindEarliestDeadline();

  const BatchPolicy policy_;
  const Clock& clock_;
  BatchItem* head_ = nullptr;
  BatchItem* tail_ = nullptr;
  size_t size_ = 0;
  int64_t earliest_deadline_ns_ = kNoDeadline;  // of the items queued; kept only if there is a wait
  bool draining_ = false;
  std::array<uint64_t, static_cast<size_t>(BatchRelease::kCount)> releases_{};
};

}  // namespace msserving
