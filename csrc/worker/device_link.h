// An extra worker's half of the channel to one device worker: groups of rows go in, reply blocks come out.
#pragma once

#include <cstdint>
#include <memory>

#include "base/error.h"
#include "base/unique_fd.h"
#include "tensor/exchange.h"
#include "tensor/ring.h"
#include "tensor/shared_memory.h"

namespace msserving {

// The channel is one of tensor/exchange.h in which the extra worker plays the server. Not thread-safe: the executor
// calls it under its lock, except reply_memory() and RingDoorbell(). Shared, so that an answer that is being read keeps
// the memory of a device worker that has died.
class DeviceLink {
 public:
  struct Descriptors {
    UniqueFd control;
    UniqueFd reply_slab;
    UniqueFd doorbell;  // the device worker's
  };
  static Status Open(uint64_t device, Descriptors descriptors, std::shared_ptr<DeviceLink>* link);
  DeviceLink(uint64_t device, SharedMemory control, SharedMemory replies, UniqueFd doorbell);
  DeviceLink(const DeviceLink&) = delete;

  // The server's name for the device worker's process.
  uint64_t device() const { return device_; }

  // False: the ring is full.
  bool Push(uint64_t group, uint64_t offset, uint64_t bytes);
  // True if the device worker sleeps and waits for what was pushed or released since the last call: RingDoorbell() is
  // due. Told once.
  bool DoorbellDue();
  void RingDoorbell() const;

  struct Answer {
    uint64_t group;
    uint64_t offset;
    const ReplyRecord* record;  // null: the block was damaged
  };
  // The next reply block; false: none now.
  bool Pop(Answer* answer);
  bool HasAnswers() const { return !replies_.Empty(); }
  // A reply block is needed no more.
  void Release(uint64_t offset);

  // Before blocking: answers that come from now on ring the worker's own doorbell.
  void Arm() { replies_.ArmDoorbell(); }
  void Disarm() { replies_.DisarmDoorbell(); }

  const uint8_t* reply_memory() const { return replies_memory_.base(); }

  uint64_t rows = 0;     // pushed and not yet answered
  bool gone = false;     // the device worker has died; what it had answered is still read
  uint8_t given_up = 0;  // then: Forwarder::Remove()

 private:
  const uint64_t device_;
  SharedMemory control_;
  SharedMemory replies_memory_;
  UniqueFd doorbell_;
  RingProducer requests_;
  RingConsumer replies_;
  RingProducer releases_;
  bool pushed_ = false;
  bool released_ = false;
};

}  // namespace msserving
