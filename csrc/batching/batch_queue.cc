#include "batching/batch_queue.h"

#include <algorithm>

namespace msserving {
namespace {

constexpr int64_t kNotRead = INT64_MIN;  // of the time: before every deadline

}  // namespace

BatchQueue::BatchQueue(BatchPolicy policy, const Clock& clock)
    : policy_{std::max<uint32_t>(policy.max_batch, 1), std::max<int64_t>(policy.max_wait_us, 0)}, clock_(clock) {}

void BatchQueue::Push(BatchItem* item) {
  item->next = nullptr;
  (tail_ != nullptr ? tail_->next : head_) = item;
  tail_ = item;
  ++size_;
  earliest_deadline_ns_ = std::min(earliest_deadline_ns_, item->deadline_ns);
}

bool BatchQueue::Ready() const {
  const int64_t at = ReadyAtNs();
  return at == INT64_MIN || (at != kNoDeadline && at <= clock_.NowNs());
}

int64_t BatchQueue::ReadyAtNs() const {
  if (size_ == 0) {
    return kNoDeadline;
  }
  if (size_ >= policy_.max_batch || draining_ || policy_.max_wait_us == 0) {
    return INT64_MIN;
  }
  const int64_t waited_ns = head_->queued_ns + policy_.max_wait_us * kNanosPerMicro;
  return earliest_deadline_ns_ <= waited_ns ? INT64_MIN : waited_ns;
}

BatchRelease BatchQueue::Reason(int64_t now_ns) const {
  if (size_ >= policy_.max_batch) {
    return BatchRelease::kFull;
  }
  if (draining_) {
    return BatchRelease::kDrain;
  }
  if (policy_.max_wait_us == 0) {
    return BatchRelease::kIdle;
  }
  const bool waited = now_ns >= head_->queued_ns + policy_.max_wait_us * kNanosPerMicro;
  return waited ? BatchRelease::kWaited : BatchRelease::kDeadline;
}

BatchItem* BatchQueue::Pop() {
  BatchItem* item = head_;
  head_ = item->next;
  if (head_ == nullptr) {
    tail_ = nullptr;
  }
  --size_;
  item->next = nullptr;
  return item;
}

BatchQueue::Batch BatchQueue::Take(std::span<BatchItem*> items) {
  if (!Ready()) {
    return {};
  }
  const int64_t now_ns = policy_.max_wait_us > 0 ? clock_.NowNs() : kNotRead;
  const BatchRelease reason = Reason(now_ns);
  const Batch batch = TakeUpTo(items.first(std::min<size_t>(policy_.max_batch, items.size())), now_ns);
  releases_[static_cast<size_t>(reason)] += batch.count > 0 ? 1 : 0;
  return batch;
}

BatchQueue::Batch BatchQueue::TakeSingly(std::span<BatchItem*> items) {
  const Batch batch = TakeUpTo(items, kNotRead);
  releases_[static_cast<size_t>(BatchRelease::kFull)] += batch.count;
  return batch;
}

int64_t BatchQueue::ReadOnce(int64_t* now_ns) const {
  if (*now_ns == kNotRead) {
    *now_ns = clock_.NowNs();
  }
  return *now_ns;
}

// The clock is read only if an item asks for the time: most have no deadline.
BatchQueue::Batch BatchQueue::TakeUpTo(std::span<BatchItem*> items, int64_t now_ns) {
  Batch batch;
  while (size_ > 0 && batch.count < items.size()) {
    if (head_->alone && batch.count > 0) [[unlikely]] {
      break;
    }
    BatchItem* item = Pop();
    if (item->cancelled != nullptr && item->cancelled->load(std::memory_order_relaxed) != 0) {
      item->next = batch.cancelled;
      batch.cancelled = item;
    } else if (item->deadline_ns != kNoDeadline && item->deadline_ns <= ReadOnce(&now_ns)) {
      item->next = batch.expired;
      batch.expired = item;
    } else {
      items[batch.count++] = item;
      if (item->alone) [[unlikely]] {
        break;
      }
    }
  }
  FindEarliestDeadline();
  return batch;
}

void BatchQueue::FindEarliestDeadline() {
  // With max_batch or more left the next batch is full and waits for no deadline; with fewer the walk is paid for by
  // the batch that was just taken.
  if (size_ == 0 || policy_.max_wait_us == 0) {
    earliest_deadline_ns_ = kNoDeadline;
    return;
  }
  if (size_ >= policy_.max_batch) {
    return;
  }
  earliest_deadline_ns_ = kNoDeadline;
  for (const BatchItem* item = head_; item != nullptr; item = item->next) {
    earliest_deadline_ns_ = std::min(earliest_deadline_ns_, item->deadline_ns);
  }
}

}  // namespace msserving
