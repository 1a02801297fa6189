#include "server/worker_link.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <utility>

namespace msserving {

WorkerLink::WorkerLink(uint64_t worker, WorkerChannel channel, UniqueFd worker_doorbell)
    : worker_(worker),
      channel_(std::move(channel)),
      worker_doorbell_(std::move(worker_doorbell)),
      requests_(channel_.control.base() + ChannelLayout::kRequests, kRequestRingCapacity),
      replies_(channel_.control.base() + ChannelLayout::kReplies, kReplyRingCapacity),
      releases_(channel_.control.base() + ChannelLayout::kReleases, kReleaseRingCapacity) {}

bool WorkerLink::Push(uint64_t request, uint64_t offset, uint64_t bytes) {
  if (!requests_.Push(MakeEntry(request, offset, bytes))) {
    return false;
  }
  pushed_ = true;
  return true;
}

void WorkerLink::RingDoorbell() {
  const bool pushed = std::exchange(pushed_, false);
  const bool released = std::exchange(released_, false);
  const bool wake_for_requests = pushed && requests_.ConsumerMustWake();
  const bool wake_for_releases = released && releases_.ConsumerMustWake();
  if (wake_for_requests || wake_for_releases) {
    // The counter cannot overflow: the worker reads it each time it has been woken.
    (void)eventfd_write(worker_doorbell_.get(), 1);
  }
}

bool WorkerLink::Pop(Segment* segment) {
  RingEntry entry;
  if (!replies_.Pop(&entry)) {
    return false;
  }
  segment->request = entry.words[0];
  segment->offset = entry.words[1];
  segment->record = nullptr;
  ++blocks_;
  largest_block_ = std::max(largest_block_, entry.words[2]);
  const Status status = ReadReplyBlock(channel_.replies.base(), channel_.replies.size(), entry.words[1], entry.words[2],
                                       &segment->record);
  if (!status.ok()) {
    segment->record = nullptr;
  }
  return true;
}

void WorkerLink::Release(uint64_t offset) {
  --blocks_;
  if (!alive) {
    return;  // the memory goes as a whole with the link
  }
  if (!unreleased_.empty()) {
    RetryReleases();
  }
  if (!unreleased_.empty() || !releases_.Push(MakeEntry(0, offset, 0))) {
    unreleased_.push_back(offset);
  }
  released_ = true;
}

void WorkerLink::RetryReleases() {
  size_t done = 0;
  while (done < unreleased_.size() && releases_.Push(MakeEntry(0, unreleased_[done], 0))) {
    ++done;
  }
  unreleased_.erase(unreleased_.begin(), unreleased_.begin() + static_cast<ptrdiff_t>(done));
}

void WorkerLink::DiscardIdleMemory() {
  // The worker writes reply blocks only for requests that are with it.
  if (outstanding_requests == 0 && blocks_ == 0 && largest_block_ >= kWorthGivingBack) {
    channel_.replies.Discard(0, channel_.replies.size());
    largest_block_ = 0;
  }
}

bool WorkerLink::ArmAndCheckEmpty() {
  if (!unreleased_.empty()) {
    RetryReleases();
  }
  replies_.ArmDoorbell();
  return replies_.Empty();
}

}  // namespace msserving
