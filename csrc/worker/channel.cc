#include "worker/channel.h"

#include <sys/eventfd.h>

namespace msserving {

Status Channel::Open(Descriptors descriptors, std::unique_ptr<Channel>* channel) {
  SharedMemory control;
  SharedMemory replies;
  SharedMemory requests;
  if (Status status = MapControlMemory(std::move(descriptors.control), &control); !status.ok()) {
    return status;
  }
  if (Status status = SharedMemory::Map(std::move(descriptors.reply_slab), &replies); !status.ok()) {
    return status;
  }
  if (Status status = SharedMemory::Map(std::move(descriptors.request_slab), &requests); !status.ok()) {
    return status;
  }
  *channel = std::make_unique<Channel>(std::move(control), std::move(replies), std::move(requests),
                                       std::move(descriptors.loop_doorbell));
  return Status::Ok();
}

Channel::Channel(SharedMemory control, SharedMemory replies, SharedMemory requests, UniqueFd loop_doorbell)
    : control_memory_(std::move(control)),
      reply_memory_(std::move(replies)),
      request_memory_(std::move(requests)),
      loop_doorbell_(std::move(loop_doorbell)),
      requests_(control_memory_.base() + ChannelLayout::kRequests, kRequestRingCapacity),
      replies_(control_memory_.base() + ChannelLayout::kReplies, kReplyRingCapacity),
      releases_(control_memory_.base() + ChannelLayout::kReleases, kReleaseRingCapacity),
      slab_(reply_memory_.size()) {}

bool Channel::Receive(RequestRecord** record) {
  RingEntry entry;
  if (broken() || !requests_.Pop(&entry)) {
    if (requests_.broken()) {
      Break(Status(ErrorKind::kInternal, "the request ring is damaged"));
    }
    return false;
  }
  Status status =
      ReadRequestBlock(request_memory_.base(), request_memory_.size(), entry.words[1], entry.words[2], record);
  if (status.ok() && (*record)->request != entry.words[0]) {
    status = Status(ErrorKind::kInternal, "a ring entry names another request than its block");
  }
  if (!status.ok()) {
    Break(std::move(status));
    return false;
  }
  return true;
}

uint64_t Channel::Allocate(uint64_t bytes) {
  uint64_t offset = slab_.Allocate(bytes);
  if (offset == kNone && HasReleases()) {
    TakeReleases();
    offset = slab_.Allocate(bytes);
  }
  return offset;
}

void Channel::Send(uint64_t request, uint64_t offset, uint64_t bytes) {
  const RingEntry entry = MakeEntry(request, offset, bytes);
  if (unsent() || !replies_.Push(entry)) {
    unsent_.push_back(entry);
    return;
  }
  sent_ = true;
}

void Channel::PushUnsent() {
  while (unsent() && replies_.Push(unsent_[unsent_begin_])) {
    ++unsent_begin_;
    sent_ = true;
  }
  if (!unsent()) {
    unsent_.clear();
    unsent_begin_ = 0;
  }
}

bool Channel::DoorbellDue() { return std::exchange(sent_, false) && replies_.ConsumerMustWake(); }

void Channel::RingDoorbell() const { eventfd_write(loop_doorbell_.get(), 1); }

void Channel::TakeReleases() {
  RingEntry entry;
  while (releases_.Pop(&entry)) {
    if (!slab_.Free(entry.words[1])) {
      Break(Status(ErrorKind::kInternal, "the server released a reply block that is not in use"));
      return;
    }
  }
  if (releases_.broken()) {
    Break(Status(ErrorKind::kInternal, "the release ring is damaged"));
  }
}

void Channel::Arm(bool requests, bool releases) {
  if (requests) {
    requests_.ArmDoorbell();
  }
  if (releases) {
    releases_.ArmDoorbell();
  }
}

void Channel::Disarm() {
  requests_.DisarmDoorbell();
  releases_.DisarmDoorbell();
}

void Channel::Break(Status reason) {
  if (broken_.ok()) {
    broken_ = std::move(reason);
  }
}

}  // namespace msserving
