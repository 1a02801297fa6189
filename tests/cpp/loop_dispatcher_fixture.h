// A LoopDispatcher on a loop of the test's own, workers that the test plays, and a fake clock.
#pragma once

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/loop_dispatcher.h"

namespace msserving::testing {

inline constexpr size_t kSlab = 8 << 20;

// The worker's side of one channel, in the test's own process.
class FakeWorker {
 public:
  FakeWorker(uint64_t id, std::shared_ptr<SharedMemory> requests) : id_(id), request_slab_(std::move(requests)) {
    EXPECT_TRUE(SharedMemory::Create("rings", ChannelLayout::kBytes, &control_).ok());
    EXPECT_TRUE(SharedMemory::Create("replies", kSlab, &replies_).ok());
    requests_ = RingConsumer(control_.base() + ChannelLayout::kRequests, kRequestRingCapacity);
    out_ = RingProducer(control_.base() + ChannelLayout::kReplies, kReplyRingCapacity);
    releases_ = RingConsumer(control_.base() + ChannelLayout::kReleases, kReleaseRingCapacity);
  }

  std::shared_ptr<WorkerLink> Link() {
    WorkerChannel channel;
    EXPECT_TRUE(SharedMemory::Map(UniqueFd(dup(control_.fd())), &channel.control).ok());
    EXPECT_TRUE(SharedMemory::Map(UniqueFd(dup(replies_.fd())), &channel.replies).ok());
    return std::make_shared<WorkerLink>(id_, std::move(channel), UniqueFd(eventfd(0, EFD_NONBLOCK)));
  }

  // The next request, or null.
  RequestRecord* Take() {
    RingEntry entry;
    if (!requests_.Pop(&entry)) {
      return nullptr;
    }
    RequestRecord* record = nullptr;
    EXPECT_TRUE(
        ReadRequestBlock(request_slab_->base(), request_slab_->size(), entry.words[1], entry.words[2], &record).ok());
    EXPECT_EQ(record->request, entry.words[0]);
    return record;
  }

  // Answers instances [first, first + count) with one float each, or with an error. Returns what the server reads.
  ReplyRecord* Answer(uint64_t request, uint32_t first, uint32_t count, float value, const std::string& error = "") {
    const uint64_t head = sizeof(ReplyRecord) + count * (sizeof(InstanceRecord) + sizeof(TensorRecord));
    const uint64_t data = (head + 63) / 64 * 64;
    const uint64_t bytes = data + 64 + error.size();
    const uint64_t offset = slab_.Allocate(bytes);
    auto* record = reinterpret_cast<ReplyRecord*>(replies_.base() + offset);
    *record = {request, first, count, 1, 0};
    std::memcpy(replies_.base() + offset + data, &value, sizeof(value));
    std::memcpy(replies_.base() + offset + data + 64, error.data(), error.size());
    for (uint32_t i = 0; i < count; ++i) {
      const auto kind = error.empty() ? ErrorKind::kOk : ErrorKind::kStageFailed;
      record->instances()[i] = {static_cast<uint32_t>(kind), static_cast<uint32_t>(error.size()), offset + data + 64};
      record->tensors()[i] = {offset + data, 4, static_cast<uint8_t>(DataType::kFloat32), 0, {}, {}};
    }
    EXPECT_TRUE(out_.Push(MakeEntry(request, offset, bytes)));
    return record;
  }

  void AnswerProbe(ErrorKind error = ErrorKind::kOk, const std::string& message = "") {
    const uint64_t bytes = 64 + message.size();
    const uint64_t offset = slab_.Allocate(bytes);
    auto* record = reinterpret_cast<ReplyRecord*>(replies_.base() + offset);
    *record = {UINT64_MAX, 0, 1, 0, 0};
    record->instances()[0] = {static_cast<uint32_t>(error), static_cast<uint32_t>(message.size()), offset + 64};
    std::memcpy(replies_.base() + offset + 64, message.data(), message.size());
    EXPECT_TRUE(out_.Push(MakeEntry(UINT64_MAX, offset, bytes)));
  }

  void AnswerNonsense(uint64_t request) { EXPECT_TRUE(out_.Push(MakeEntry(request, kSlab - 64, 1 << 20))); }

  // Frees what the server has released; the number of blocks still out.
  uint64_t BlocksOut() {
    RingEntry entry;
    while (releases_.Pop(&entry)) {
      EXPECT_TRUE(slab_.Free(entry.words[1]));
    }
    return slab_.blocks();
  }

  uint64_t id() const { return id_; }

 private:
  uint64_t id_;
  std::shared_ptr<SharedMemory> request_slab_;
  SharedMemory control_;
  SharedMemory replies_;
  RingConsumer requests_;
  RingProducer out_;
  RingConsumer releases_;
  SlabAllocator slab_{kSlab};
};

class Sink : public ReplySink {
 public:
  void OnReply(Reply reply) override {
    ++replies;
    errors.clear();
    messages.clear();
    values.clear();
    for (const InstanceResult& result : reply.results) {
      errors.push_back(result.error);
      messages.emplace_back(result.message);
      float value = -1;
      if (!result.outputs.empty()) {
        std::memcpy(&value, result.outputs[0].data, sizeof(value));
      }
      values.push_back(value);
    }
    if (keep) {
      memory = std::move(reply.memory);
    }
  }
  int replies = 0;
  bool keep = false;
  std::vector<ErrorKind> errors;
  std::vector<std::string> messages;
  std::vector<float> values;
  ReplyMemoryPtr memory;
};

class LoopDispatcherTest : public ::testing::Test {
 protected:
  LoopDispatcherTest()
      : limits_(std::make_shared<DispatchLimits>()),
        dispatcher_(&loop_, UniqueFd(eventfd(0, EFD_NONBLOCK)), limits_),
        requests_(std::make_shared<SharedMemory>()) {
    EXPECT_TRUE(SharedMemory::Create("requests", kSlab, requests_.get()).ok());
  }

  FakeWorker* Add(uint64_t id, uint64_t version = 1, std::shared_ptr<const VersionGate> gate = nullptr) {
    AddNewcomer(id, version, std::move(gate));
    dispatcher_.JoinWorker(id);
    return workers_.back().get();
  }
  FakeWorker* AddNewcomer(uint64_t id, uint64_t version = 1, std::shared_ptr<const VersionGate> gate = nullptr) {
    workers_.push_back(std::make_unique<FakeWorker>(id, requests_));
    dispatcher_.AddWorker({"add", version, {{"sum", {"x"}, {"y"}}}}, requests_, workers_.back()->Link(), gate);
    return workers_.back().get();
  }

  // One that runs Python stages alone.
  FakeWorker* AddExtra(uint64_t id) {
    workers_.push_back(std::make_unique<FakeWorker>(id, requests_));
    const std::shared_ptr<WorkerLink> link = workers_.back()->Link();
    link->extra = true;
    ServableSignature signature{"add", 1, {{"sum", {"x"}, {"y"}}}};
    signature.methods[0].has_python = true;
    dispatcher_.AddWorker(signature, requests_, link);
    dispatcher_.JoinWorker(id);
    return workers_.back().get();
  }

  // One instance for each value.
  Status SubmitValues(Sink* sink, const std::vector<float>& values, RequestTicket* ticket = nullptr) {
    MethodTarget target;
    if (Status status = dispatcher_.Find("add", 0, "sum", kNoDeadline, &target); !status.ok()) {
      return status;
    }
    RequestInstances request;
    request.count = values.size();
    for (const float& value : values) {
      TensorView view;
      view.data = reinterpret_cast<const uint8_t*>(&value);
      view.bytes = 4;
      view.dtype = DataType::kFloat32;
      request.tensors.push_back(view);
    }
    RequestTicket unused;
    return dispatcher_.Submit(target, request, kNoDeadline, sink, ticket != nullptr ? ticket : &unused);
  }

  static InstanceOrder OrderOf(RequestRecord* record, uint32_t instance = 0) {
    return static_cast<InstanceOrder>(record->mark_of(instance)->order);
  }

  Status Submit(Sink* sink, size_t instances = 1, RequestTicket* ticket = nullptr, uint64_t version = 0,
                int64_t deadline_ns = kNoDeadline) {
    MethodTarget target;
    if (Status status = dispatcher_.Find("add", version, "sum", kNoDeadline, &target); !status.ok()) {
      return status;
    }
    RequestInstances request;
    request.count = instances;
    static const float kValue = 7;
    TensorView view;
    view.data = reinterpret_cast<const uint8_t*>(&kValue);
    view.bytes = 4;
    view.dtype = DataType::kFloat32;
    request.tensors.assign(instances, view);
    RequestTicket unused;
    return dispatcher_.Submit(target, request, deadline_ns, sink, ticket != nullptr ? ticket : &unused);
  }

  // One wake-up of the loop: its hooks run.
  void Turn() {
    loop_.Post([this] { loop_.Stop(); });
    loop_.Run();
  }

  // A worker that takes 10 ms an instance, with 60 of them in its queue: 600 ms to wait.
  void FillQueue(FakeWorker* worker, Sink* sink) {
    ASSERT_TRUE(Submit(sink, 1, nullptr, 0, clock_.NowNs() + kNanosPerMilli).ok()) << "nobody is waiting yet";
    for (int i = 0; i < 59; ++i) {
      ASSERT_TRUE(Submit(sink).ok());
    }
    for (int i = 0; i < 30; ++i) {
      clock_.Advance(10 * kNanosPerMilli);
      worker->Answer(worker->Take()->request, 0, 1, 1);
      Turn();
      ASSERT_TRUE(Submit(sink).ok());
    }
  }

  static uint64_t PagesOf(const SharedMemory& memory) {
    struct stat info {};
    fstat(memory.fd(), &info);
    return static_cast<uint64_t>(info.st_blocks) * 512;
  }

  FakeClock clock_;
  EventLoop loop_{clock_};
  std::shared_ptr<DispatchLimits> limits_;
  LoopDispatcher dispatcher_;
  std::shared_ptr<SharedMemory> requests_;
  std::vector<std::unique_ptr<FakeWorker>> workers_;
};

}  // namespace msserving::testing
