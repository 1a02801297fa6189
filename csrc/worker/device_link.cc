#include "worker/device_link.h"

#include <sys/eventfd.h>

#include <utility>

namespace msserving {

Status DeviceLink::Open(uint64_t device, Descriptors descriptors, std::shared_ptr<DeviceLink>* link) {
  SharedMemory control;
  SharedMemory replies;
  if (Status status = MapControlMemory(std::move(descriptors.control), &control); !status.ok()) {
    return status;
  }
  if (Status status = SharedMemory::Map(std::move(descriptors.reply_slab), &replies); !status.ok()) {
    return status;
  }
  *link = std::make_shared<DeviceLink>(device, std::move(control), std::move(replies), std::move(descriptors.doorbell));
  return Status::Ok();
}

DeviceLink::DeviceLink(uint64_t device, SharedMemory control, SharedMemory replies, UniqueFd doorbell)
    : device_(device),
      control_(std::move(control)),
      replies_memory_(std::move(replies)),
      doorbell_(std::move(doorbell)),
      requests_(control_.base() + ChannelLayout::kRequests, kRequestRingCapacity),
      replies_(control_.base() + ChannelLayout::kReplies, kReplyRingCapacity),
      releases_(control_.base() + ChannelLayout::kReleases, kReleaseRingCapacity) {}

bool DeviceLink::Push(uint64_t group, uint64_t offset, uint64_t bytes) {
  const bool pushed = requests_.Push(MakeEntry(group, offset, bytes));
  pushed_ = pushed_ || pushed;
  return pushed;
}

void DeviceLink::Release(uint64_t offset) {
  // Never full: it is longer than the number of blocks that can be out, and the device worker empties it each time it
  // looks for requests.
  (void)releases_.Push(MakeEntry(0, offset, 0));
  released_ = true;
}

bool DeviceLink::DoorbellDue() {
  const bool pushed = std::exchange(pushed_, false);
  const bool released = std::exchange(released_, false);
  const bool for_requests = pushed && requests_.ConsumerMustWake();
  const bool for_releases = released && releases_.ConsumerMustWake();
  return for_requests || for_releases;
}

void DeviceLink::RingDoorbell() const { eventfd_write(doorbell_.get(), 1); }

bool DeviceLink::Pop(Answer* answer) {
  RingEntry entry;
  if (!replies_.Pop(&entry)) {
    return false;
  }
  answer->group = entry.words[0];
  answer->offset = entry.words[1];
  const Status status =
      ReadReplyBlock(replies_memory_.base(), replies_memory_.size(), entry.words[1], entry.words[2], &answer->record);
  if (!status.ok() || answer->record->request != answer->group) {
    answer->record = nullptr;
  }
  return true;
}

}  // namespace msserving
