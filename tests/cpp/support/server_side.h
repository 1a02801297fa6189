// Plays the server's side of one channel inside a test or benchmark: writes request blocks, reads replies.
#pragma once

#include <poll.h>
#include <sys/eventfd.h>

#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/clock.h"
#include "tensor/exchange.h"
#include "tensor/shared_memory.h"
#include "tensor/slab.h"
#include "worker/channel.h"

namespace msserving::testing_support {

inline void Require(const Status& status) {
  if (!status.ok()) {
    throw std::runtime_error(status.message());
  }
}

// A tensor with memory of its own.
struct OwnedTensor {
  TensorView view;
  std::vector<uint8_t> bytes;

  const TensorView& View() {
    view.data = bytes.data();
    view.bytes = bytes.size();
    return view;
  }
  template <typename T>
  std::vector<T> As() const {
    std::vector<T> values(bytes.size() / sizeof(T));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    return values;
  }
};

template <typename T>
OwnedTensor MakeTensor(DataType dtype, std::vector<int64_t> dims, const std::vector<T>& values) {
  OwnedTensor tensor;
  tensor.bytes.resize(values.size() * sizeof(T));
  if (!values.empty()) {
    std::memcpy(tensor.bytes.data(), values.data(), tensor.bytes.size());
  }
  tensor.view.dtype = dtype;
  tensor.view.rank = static_cast<uint8_t>(dims.size());
  std::copy(dims.begin(), dims.end(), tensor.view.dims);
  return tensor;
}

inline OwnedTensor Floats(std::vector<int64_t> dims, const std::vector<float>& values) {
  return MakeTensor(DataType::kFloat32, std::move(dims), values);
}

struct Answer {
  ErrorKind error = ErrorKind::kOk;
  std::string message;
  std::vector<OwnedTensor> outputs;
};

// One thread at a time.
class ServerSide {
 public:
  explicit ServerSide(size_t request_bytes = 64 << 20, size_t reply_bytes = 64 << 20) : slab_(request_bytes) {
    Require(SharedMemory::Create("test-control", ChannelLayout::kBytes, &control_));
    Require(SharedMemory::Create("test-replies", reply_bytes, &replies_memory_));
    Require(SharedMemory::Create("test-requests", request_bytes, &requests_memory_));
    worker_doorbell_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    loop_doorbell_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    requests_ = RingProducer(control_.base() + ChannelLayout::kRequests, kRequestRingCapacity);
    replies_ = RingConsumer(control_.base() + ChannelLayout::kReplies, kReplyRingCapacity);
    releases_ = RingProducer(control_.base() + ChannelLayout::kReleases, kReleaseRingCapacity);
  }

  std::unique_ptr<Channel> MakeWorkerChannel() {
    std::unique_ptr<Channel> channel;
    Channel::Descriptors descriptors;
    descriptors.control = UniqueFd(dup(control_.fd()));
    descriptors.reply_slab = UniqueFd(dup(replies_memory_.fd()));
    descriptors.request_slab = UniqueFd(dup(requests_memory_.fd()));
    descriptors.loop_doorbell = UniqueFd(dup(loop_doorbell_.get()));
    Require(Channel::Open(std::move(descriptors), &channel));
    return channel;
  }
  UniqueFd WorkerDoorbell() const { return UniqueFd(dup(worker_doorbell_.get())); }
  int worker_doorbell() const { return worker_doorbell_.get(); }
  int loop_doorbell() const { return loop_doorbell_.get(); }
  SharedMemory& control() { return control_; }
  SharedMemory& replies_memory() { return replies_memory_; }
  SharedMemory& requests_memory() { return requests_memory_; }

  // Queues a request of tensors.size() / inputs instances; Ring() tells the worker. Returns its name.
  uint64_t Queue(uint32_t method, uint32_t inputs, std::vector<OwnedTensor> tensors, int64_t deadline_ns = kNoDeadline,
                 uint32_t instances = 0) {
    std::vector<TensorView> views;
    for (OwnedTensor& tensor : tensors) {
      views.push_back(tensor.View());
    }
    return QueueViews(method, inputs, views, deadline_ns, instances);
  }

  uint64_t QueueViews(uint32_t method, uint32_t inputs, std::span<const TensorView> views,
                      int64_t deadline_ns = kNoDeadline, uint32_t instances = 0) {
    const uint64_t bytes = RequestBlockBytes(views);
    const uint64_t offset = slab_.Allocate(bytes);
    if (offset == SlabAllocator::kNone) {
      throw std::runtime_error("the test's request slab is full");
    }
    const uint32_t count = instances != 0 ? instances : static_cast<uint32_t>(views.size() / inputs);
    const uint64_t id = next_id_++;
    WriteRequestBlock(requests_memory_.base(), offset, id, deadline_ns, method, count, inputs, views);
    Pending& pending = pending_[id];
    pending.offset = offset;
    pending.left = count;
    pending.answers.resize(count);
    pending.seen.assign(count, false);
    if (!requests_.Push(MakeEntry(id, offset, bytes))) {
      throw std::runtime_error("the request ring is full");
    }
    return id;
  }

  // True if the worker had to be woken.
  bool Ring() {
    if (!requests_.ConsumerMustWake()) {
      return false;
    }
    eventfd_write(worker_doorbell_.get(), 1);
    return true;
  }

  uint64_t Send(uint32_t method, uint32_t inputs, std::vector<OwnedTensor> tensors, int64_t deadline_ns = kNoDeadline) {
    const uint64_t id = Queue(method, inputs, std::move(tensors), deadline_ns);
    Ring();
    return id;
  }

  uint64_t Probe() {
    const uint64_t id = QueueViews(kProbeMethod, 0, {}, kNoDeadline, 1);
    Ring();
    return id;
  }

  RequestRecord* Record(uint64_t id) {
    return reinterpret_cast<RequestRecord*>(requests_memory_.base() + pending_.at(id).offset);
  }

  // Reads what is in the reply ring. `release`: gives the blocks back at once.
  size_t TakeReplies(bool release = true) {
    size_t taken = 0;
    RingEntry entry;
    while (replies_.Pop(&entry)) {
      TakeBlock(entry);
      ++taken;
      ++segments_;
      unreleased_.push_back(entry.words[1]);
    }
    if (release) {
      Release();
    }
    return taken;
  }

  void Release() {
    for (const uint64_t offset : unreleased_) {
      if (!releases_.Push(MakeEntry(0, offset, 0))) {
        throw std::runtime_error("the release ring is full");
      }
    }
    unreleased_.clear();
    if (releases_.ConsumerMustWake()) {
      eventfd_write(worker_doorbell_.get(), 1);
    }
  }

  bool Done(uint64_t id) const { return pending_.at(id).left == 0; }

  // Waits for all instances, sleeping on the loop's doorbell as the server does.
  std::vector<Answer> Wait(uint64_t id, int timeout_ms = 20'000, bool release = true) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
    while (true) {
      TakeReplies(release);
      if (Done(id)) {
        std::vector<Answer> answers = std::move(pending_.at(id).answers);
        slab_.Free(pending_.at(id).offset);
        pending_.erase(id);
        return answers;
      }
      if (std::chrono::steady_clock::now() > end) {
        throw std::runtime_error("no answer in time");
      }
      Block(timeout_ms);
    }
  }

  // Blocks until the worker rings, as the server's loop does.
  void Block(int timeout_ms) {
    replies_.ArmDoorbell();
    if (replies_.Empty()) {
      pollfd watched{loop_doorbell_.get(), POLLIN, 0};
      poll(&watched, 1, timeout_ms);
    }
    replies_.DisarmDoorbell();
    eventfd_t value;
    eventfd_read(loop_doorbell_.get(), &value);
  }

  uint64_t segments() const { return segments_; }
  RingProducer& requests() { return requests_; }
  RingConsumer& replies() { return replies_; }
  RingProducer& releases() { return releases_; }

 private:
  struct Pending {
    uint64_t offset = 0;
    uint32_t left = 0;
    std::vector<Answer> answers;
    std::vector<bool> seen;
  };

  void TakeBlock(const RingEntry& entry) {
    const ReplyRecord* record = nullptr;
    Require(ReadReplyBlock(replies_memory_.base(), replies_memory_.size(), entry.words[1], entry.words[2], &record));
    Pending& pending = pending_.at(record->request);
    for (uint32_t i = 0; i < record->count; ++i) {
      const InstanceRecord& outcome = record->instances()[i];
      const uint32_t index = record->first + i;
      if (pending.seen.at(index)) {
        throw std::runtime_error("an instance was answered twice");
      }
      pending.seen[index] = true;
      --pending.left;
      Answer& answer = pending.answers[index];
      answer.error = static_cast<ErrorKind>(outcome.error);
      answer.message.assign(reinterpret_cast<const char*>(replies_memory_.base()) + outcome.message_offset,
                            outcome.message_bytes);
      for (uint32_t k = 0; outcome.error == 0 && k < record->outputs; ++k) {
        const TensorView view = ViewOf(replies_memory_.base(), record->tensors()[i * record->outputs + k]);
        OwnedTensor tensor;
        tensor.view = view;
        tensor.bytes.assign(view.data, view.data + view.bytes);
        answer.outputs.push_back(std::move(tensor));
      }
    }
  }

  SharedMemory control_;
  SharedMemory replies_memory_;
  SharedMemory requests_memory_;
  UniqueFd worker_doorbell_;
  UniqueFd loop_doorbell_;
  RingProducer requests_;
  RingConsumer replies_;
  RingProducer releases_;
  SlabAllocator slab_;
  uint64_t next_id_ = 1;
  uint64_t segments_ = 0;
  std::map<uint64_t, Pending> pending_;
  std::vector<uint64_t> unreleased_;
};

}  // namespace msserving::testing_support
