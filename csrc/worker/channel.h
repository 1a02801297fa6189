// The worker's side of one channel of tensor/exchange.h: requests come out of it, reply blocks go into it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/unique_fd.h"
#include "tensor/exchange.h"
#include "tensor/shared_memory.h"
#include "tensor/slab.h"

namespace msserving {

// Not thread-safe: the executor calls it under its lock, except reply_memory() and request_memory(), whose bytes may
// be touched by whoever holds a block of them.
class Channel {
 public:
  static constexpr uint64_t kNone = SlabAllocator::kNone;

  struct Descriptors {
    UniqueFd control;
    UniqueFd reply_slab;
    UniqueFd request_slab;
    UniqueFd loop_doorbell;
  };
  static Status Open(Descriptors descriptors, std::unique_ptr<Channel>* channel);
  Channel(SharedMemory control, SharedMemory replies, SharedMemory requests, UniqueFd loop_doorbell);
  Channel(const Channel&) = delete;

  // The next request, its block checked; false: none, or the channel is broken().
  bool Receive(RequestRecord** record);
  bool HasRequests() const { return !requests_.Empty(); }

  // Room for a reply block; takes back what the server has released before it says kNone.
  uint64_t Allocate(uint64_t bytes);
  // Gives a block back that was never sent.
  void Free(uint64_t offset) { slab_.Free(offset); }
  // Queues a written block. Never fails: while the ring is full the entry waits here (unsent()).
  void Send(uint64_t request, uint64_t offset, uint64_t bytes);
  // Moves waiting entries into the ring.
  void PushUnsent();
  bool unsent() const { return unsent_begin_ < unsent_.size(); }
  // True if the server's loop sleeps and RingDoorbell() is due; told once. Call after a batch of Send().
  bool DoorbellDue();
  void RingDoorbell() const;  // a system call: any thread, best without the lock

  // True if the server has released blocks since.
  bool HasReleases() const { return !releases_.Empty(); }
  void TakeReleases();

  // Before blocking: requests or releases that come from now on ring the worker's doorbell.
  void Arm(bool requests, bool releases);
  void Disarm();

  int control_fd() const { return control_memory_.fd(); }
  WorkerBoard* board() const { return reinterpret_cast<WorkerBoard*>(control_memory_.base() + ChannelLayout::kBoard); }
  uint8_t* request_memory() const { return request_memory_.base(); }
  uint64_t request_bytes() const { return request_memory_.size(); }
  uint8_t* reply_memory() const { return reply_memory_.base(); }
  uint64_t reply_bytes() const { return reply_memory_.size(); }
  const SlabAllocator& slab() const { return slab_; }

  // The server wrote something that makes no sense; the text says what.
  bool broken() const { return !broken_.ok(); }
  const Status& broken_reason() const { return broken_; }
  void Break(Status reason);

 private:
  SharedMemory control_memory_;
  SharedMemory reply_memory_;
  SharedMemory request_memory_;
  UniqueFd loop_doorbell_;
  RingConsumer requests_;
  RingProducer replies_;
  RingConsumer releases_;
  SlabAllocator slab_;
  std::vector<RingEntry> unsent_;
  size_t unsent_begin_ = 0;
  bool sent_ = false;
  Status broken_;
};

}  // namespace msserving
