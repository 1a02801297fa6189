#include "server/loop_dispatcher.h"

#include <gtest/gtest.h>

#include <sys/eventfd.h>
#include <sys/stat.h>

#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace msserving {
namespace {

constexpr size_t kSlab = 8 << 20;

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

  // Answers instances [first, first + count) with one float each, or with an error.
  void Answer(uint64_t request, uint32_t first, uint32_t count, float value, const std::string& error = "") {
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

class LoopDispatcherTest : public testing::Test {
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

TEST_F(LoopDispatcherTest, SegmentsInAnyOrderMakeOneReply) {
  FakeWorker* worker = Add(1);
  Sink sink;
  ASSERT_TRUE(Submit(&sink, 5).ok());
  RequestRecord* request = worker->Take();
  ASSERT_NE(request, nullptr);
  EXPECT_EQ(request->instances, 5u);
  worker->Answer(request->request, 3, 2, 30);
  worker->Answer(request->request, 0, 2, 10);
  Turn();
  EXPECT_EQ(sink.replies, 0);
  worker->Answer(request->request, 2, 1, 0, "bad row");
  Turn();
  ASSERT_EQ(sink.replies, 1);
  EXPECT_EQ(sink.values, (std::vector<float>{10, 10, -1, 30, 30}));
  EXPECT_EQ(sink.errors[2], ErrorKind::kStageFailed);
  EXPECT_EQ(sink.messages[2], "bad row");
  EXPECT_EQ(worker->BlocksOut(), 0u);
  EXPECT_EQ(dispatcher_.pending(), 0u);
}

TEST_F(LoopDispatcherTest, ReplyMemoryStaysUntilReleased) {
  FakeWorker* worker = Add(1);
  Sink sink;
  sink.keep = true;
  ASSERT_TRUE(Submit(&sink).ok());
  worker->Answer(worker->Take()->request, 0, 1, 1);
  Turn();
  EXPECT_EQ(sink.replies, 1);
  EXPECT_EQ(worker->BlocksOut(), 1u);
  sink.memory.reset();
  EXPECT_EQ(worker->BlocksOut(), 0u);
}

TEST_F(LoopDispatcherTest, LeastBusyWorkerGetsTheNextRequest) {
  FakeWorker* a = Add(1);
  FakeWorker* b = Add(2);
  Sink sink;
  ASSERT_TRUE(Submit(&sink, 10).ok());
  ASSERT_TRUE(Submit(&sink, 1).ok());
  ASSERT_TRUE(Submit(&sink, 1).ok());
  EXPECT_EQ(a->Take()->instances, 10u);
  EXPECT_EQ(a->Take(), nullptr);
  EXPECT_EQ(b->Take()->instances, 1u);
  EXPECT_EQ(b->Take()->instances, 1u);
}

TEST_F(LoopDispatcherTest, DeadWorkersRequestsAreGivenToAnother) {
  FakeWorker* a = Add(1);
  FakeWorker* b = Add(2);
  Sink first;
  Sink second;
  ASSERT_TRUE(Submit(&first, 2).ok());
  ASSERT_TRUE(Submit(&second, 1).ok());
  a->Answer(a->Take()->request, 0, 1, 5);  // half of it only
  Turn();
  dispatcher_.RemoveWorker(1, "killed");
  EXPECT_EQ(first.replies, 0);
  b->Answer(b->Take()->request, 0, 1, 6);
  RequestRecord* again = b->Take();
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(again->instances, 2u);
  b->Answer(again->request, 0, 2, 8);
  Turn();
  EXPECT_EQ(first.values, (std::vector<float>{8, 8}));
  EXPECT_EQ(second.values, (std::vector<float>{6}));
  EXPECT_EQ(dispatcher_.stats().redispatched.load(), 1u);
}

TEST_F(LoopDispatcherTest, WhatADeadWorkerHadAnsweredCounts) {
  FakeWorker* a = Add(1);
  Add(2);
  Sink sink;
  ASSERT_TRUE(Submit(&sink).ok());
  a->Answer(a->Take()->request, 0, 1, 5);
  dispatcher_.RemoveWorker(1, "killed");
  EXPECT_EQ(sink.values, (std::vector<float>{5}));
  EXPECT_EQ(dispatcher_.stats().redispatched.load(), 0u);
}

TEST_F(LoopDispatcherTest, TwoDeathsEndARequestWithAnError) {
  Add(1);
  Add(2);
  Add(3);
  Sink sink;
  ASSERT_TRUE(Submit(&sink, 2).ok());
  workers_[0]->Take()->mark_of(1)->SetRunning(1);
  dispatcher_.RemoveWorker(1, "first");
  EXPECT_EQ(sink.replies, 0);
  RequestRecord* again = workers_[1]->Take();
  EXPECT_EQ(again->mark_of(1)->Running(), 0);
  again->mark_of(1)->SetRunning(2);
  dispatcher_.RemoveWorker(2, "second death");
  ASSERT_EQ(sink.replies, 1);
  EXPECT_EQ(sink.errors, (std::vector<ErrorKind>(2, ErrorKind::kWorkerUnavailable)));
  EXPECT_EQ(sink.messages[0], "second death");
}

TEST_F(LoopDispatcherTest, QueuedRequestOutlivesManyDeathsAndIsNoSuspect) {
  for (uint64_t id = 1; id <= 5; ++id) {
    Add(id);
  }
  Sink sink;
  ASSERT_TRUE(Submit(&sink).ok());
  for (uint64_t id = 1; id <= 4; ++id) {
    dispatcher_.RemoveWorker(id, "killed");
    EXPECT_EQ(sink.replies, 0);
  }
  EXPECT_TRUE(limits_->suspects.empty());
  RequestRecord* last = workers_[4]->Take();
  ASSERT_NE(last, nullptr);
  EXPECT_EQ(OrderOf(last), InstanceOrder::kRun);
  workers_[4]->Answer(last->request, 0, 1, 3);
  Turn();
  EXPECT_EQ(sink.values, (std::vector<float>{3}));
}

TEST_F(LoopDispatcherTest, InputsThatEndThreeWorkersAreRefused_OthersGoOn) {
  Add(1);
  Add(2);
  Sink poison;
  ASSERT_TRUE(SubmitValues(&poison, {13}).ok());
  workers_[0]->Take()->mark_of(0)->SetRunning(1);
  dispatcher_.RemoveWorker(1, "first death");
  RequestRecord* again = workers_[1]->Take();
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(OrderOf(again), InstanceOrder::kRunAlone);
  again->mark_of(0)->SetRunning(1);
  dispatcher_.RemoveWorker(2, "second death");
  EXPECT_EQ(poison.messages, (std::vector<std::string>{"second death"}));

  Add(3);
  Add(4);
  Sink resent;
  Sink other;
  ASSERT_TRUE(SubmitValues(&resent, {13}).ok());
  RequestRecord* third = workers_[2]->Take();
  EXPECT_EQ(OrderOf(third), InstanceOrder::kRunAlone);
  third->mark_of(0)->SetRunning(2);
  dispatcher_.RemoveWorker(3, "third death");
  EXPECT_EQ(resent.messages, (std::vector<std::string>{"third death"}));
  EXPECT_EQ(workers_[3]->Take(), nullptr) << "the third death is the last";

  const Status refused = SubmitValues(&resent, {13});
  EXPECT_EQ(refused.kind(), ErrorKind::kStageFailed);
  EXPECT_EQ(refused.message(), kRefusedText);
  ASSERT_TRUE(SubmitValues(&other, {14}).ok());
  RequestRecord* good = workers_[3]->Take();
  EXPECT_EQ(OrderOf(good), InstanceOrder::kRun);
  workers_[3]->Answer(good->request, 0, 1, 5);
  // Among others it alone is refused.
  ASSERT_TRUE(SubmitValues(&resent, {1, 13, 2}).ok());
  RequestRecord* mixed = workers_[3]->Take();
  EXPECT_EQ(OrderOf(mixed, 0), InstanceOrder::kRun);
  EXPECT_EQ(OrderOf(mixed, 1), InstanceOrder::kRefuse);
  EXPECT_EQ(OrderOf(mixed, 2), InstanceOrder::kRun);
  Turn();
  EXPECT_EQ(other.values, (std::vector<float>{5}));
}

TEST_F(LoopDispatcherTest, AnswerClearsASuspect) {
  Add(1);
  Add(2);
  Sink sink;
  ASSERT_TRUE(SubmitValues(&sink, {13}).ok());
  workers_[0]->Take()->mark_of(0)->SetRunning(1);
  dispatcher_.RemoveWorker(1, "killed from outside");
  EXPECT_FALSE(limits_->suspects.empty());
  workers_[1]->Answer(workers_[1]->Take()->request, 0, 1, 5);
  Turn();
  EXPECT_EQ(sink.values, (std::vector<float>{5}));
  EXPECT_TRUE(limits_->suspects.empty());
}

TEST_F(LoopDispatcherTest, WhatOnlyWaitedIsMovedBeforeASuspect) {
  Add(1);
  Sink suspect;
  Sink waiting;
  ASSERT_TRUE(SubmitValues(&suspect, {13}).ok());
  ASSERT_TRUE(SubmitValues(&waiting, {1}).ok());
  workers_[0]->Take()->mark_of(0)->SetRunning(1);
  Add(2);
  dispatcher_.RemoveWorker(1, "killed");
  EXPECT_EQ(OrderOf(workers_[1]->Take()), InstanceOrder::kRun);
  EXPECT_EQ(OrderOf(workers_[1]->Take()), InstanceOrder::kRunAlone);
}

TEST_F(LoopDispatcherTest, AnsweredInstancesOfADeadWorkersRequestAreKeptIfItCannotBeMoved) {
  Add(1);
  Sink sink;
  ASSERT_TRUE(Submit(&sink, 3).ok());
  workers_[0]->Answer(workers_[0]->Take()->request, 0, 2, 5);
  dispatcher_.RemoveWorker(1, "killed");
  EXPECT_EQ(sink.errors, (std::vector<ErrorKind>{ErrorKind::kOk, ErrorKind::kOk, ErrorKind::kWorkerUnavailable}));
  EXPECT_EQ(sink.values, (std::vector<float>{5, 5, -1}));
  EXPECT_EQ(sink.messages[2], "killed");
  EXPECT_EQ(dispatcher_.pending(), 0u);
}

TEST_F(LoopDispatcherTest, InstanceOverItsTimeOutIsAnsweredAtOnce_ItsMemoryComesBackWithTheWorkersEnd) {
  Add(1);
  Sink hung;
  Sink queued;
  ASSERT_TRUE(SubmitValues(&hung, {13}).ok());
  ASSERT_TRUE(SubmitValues(&queued, {1}).ok());
  workers_[0]->Take()->mark_of(0)->SetRunning(2);
  Add(2);
  dispatcher_.GiveUp(1, 2);
  EXPECT_EQ(hung.errors, (std::vector<ErrorKind>{ErrorKind::kTimedOut}));
  EXPECT_EQ(hung.messages[0], kGivenUpText);
  EXPECT_EQ(dispatcher_.pending(), 2u);
  Sink next;
  ASSERT_TRUE(SubmitValues(&next, {2}).ok());
  EXPECT_NE(workers_[1]->Take(), nullptr) << "the worker that is ended gets no more";
  dispatcher_.RemoveWorker(1, "ended");
  EXPECT_EQ(hung.replies, 1);
  EXPECT_EQ(dispatcher_.pending(), 2u);
  RequestRecord* moved = workers_[1]->Take();
  ASSERT_NE(moved, nullptr);
  EXPECT_EQ(OrderOf(moved), InstanceOrder::kRun);
}

TEST_F(LoopDispatcherTest, WorkerEndedForItsSilence_NobodyIsAnsweredBeforeOrAccused) {
  Add(1);
  Sink running;
  Sink queued;
  ASSERT_TRUE(SubmitValues(&running, {13}).ok());
  ASSERT_TRUE(SubmitValues(&queued, {1}).ok());
  workers_[0]->Take()->mark_of(0)->SetRunning(2);
  Add(2);
  dispatcher_.GiveUp(1, 0);
  dispatcher_.RemoveWorker(1, "stopped");
  EXPECT_EQ(running.replies + queued.replies, 0);
  EXPECT_TRUE(limits_->suspects.empty());
  EXPECT_NE(workers_[1]->Take(), nullptr);
  EXPECT_NE(workers_[1]->Take(), nullptr);
}

TEST_F(LoopDispatcherTest, OthersOfARequestWithAHungInstanceRunElsewhere) {
  Add(1);
  Add(2);
  Sink sink;
  ASSERT_TRUE(SubmitValues(&sink, {1, 13, 2}).ok());
  workers_[0]->Take()->mark_of(1)->SetRunning(2);
  dispatcher_.GiveUp(1, 2);
  EXPECT_EQ(sink.replies, 0);
  dispatcher_.RemoveWorker(1, "ended");
  RequestRecord* moved = workers_[1]->Take();
  ASSERT_NE(moved, nullptr);
  EXPECT_EQ(OrderOf(moved, 0), InstanceOrder::kRun);
  EXPECT_EQ(OrderOf(moved, 1), InstanceOrder::kGivenUp);
  EXPECT_EQ(OrderOf(moved, 2), InstanceOrder::kRun);
}

TEST_F(LoopDispatcherTest, RequestThatUserCodeMayHaveChangedIsNotRunAgain) {
  FakeWorker* a = Add(1);
  Add(2);
  Sink sink;
  ASSERT_TRUE(Submit(&sink).ok());
  a->Take()->touched.store(1);
  dispatcher_.RemoveWorker(1, "killed");
  EXPECT_EQ(sink.errors, (std::vector<ErrorKind>{ErrorKind::kWorkerUnavailable}));
}

TEST_F(LoopDispatcherTest, CancelledRequestIsMarkedAndItsMemoryComesBack) {
  FakeWorker* worker = Add(1);
  Sink sink;
  RequestTicket ticket = 0;
  ASSERT_TRUE(Submit(&sink, 1, &ticket).ok());
  dispatcher_.Cancel(ticket);
  dispatcher_.Cancel(ticket);
  RequestRecord* request = worker->Take();
  EXPECT_EQ(request->cancelled.load(), 1u);
  EXPECT_EQ(dispatcher_.pending(), 1u);
  worker->Answer(request->request, 0, 1, 1);
  Turn();
  EXPECT_EQ(sink.replies, 0);
  EXPECT_EQ(dispatcher_.pending(), 0u);
  EXPECT_EQ(worker->BlocksOut(), 0u);
}

TEST_F(LoopDispatcherTest, LimitsRefuseAndRecover) {
  FakeWorker* worker = Add(1);
  limits_->max_pending_requests = 2;
  Sink sink;
  ASSERT_TRUE(Submit(&sink).ok());
  ASSERT_TRUE(Submit(&sink).ok());
  const Status refused = Submit(&sink);
  EXPECT_EQ(refused.kind(), ErrorKind::kOverloaded);
  EXPECT_EQ(refused.message(), "enqueued requests count exceeds the limit 2");
  worker->Answer(worker->Take()->request, 0, 1, 1);
  Turn();
  EXPECT_TRUE(Submit(&sink).ok());
}

TEST_F(LoopDispatcherTest, CancelledRequestsOfAStuckWorkerLeaveTheirPlacesToOthers) {
  FakeWorker* stuck = Add(1);
  limits_->max_pending_requests = 2;
  Sink sink;
  RequestTicket first = 0;
  RequestTicket second = 0;
  ASSERT_TRUE(Submit(&sink, 1, &first).ok());
  ASSERT_TRUE(Submit(&sink, 1, &second).ok());
  ASSERT_FALSE(dispatcher_.Full().ok());
  dispatcher_.Cancel(first);
  dispatcher_.Cancel(first);
  EXPECT_TRUE(dispatcher_.Full().ok());
  EXPECT_TRUE(Submit(&sink).ok());
  EXPECT_EQ(Submit(&sink).kind(), ErrorKind::kOverloaded)
      << "a request gives up one place, however often it is cancelled";
  dispatcher_.Cancel(second);
  EXPECT_EQ(limits_->pending_requests.load(), 1u);
  for (int i = 0; i < 3; ++i) {  // it goes on after all
    stuck->Answer(stuck->Take()->request, 0, 1, 1);
  }
  Turn();
  EXPECT_EQ(sink.replies, 1);
  EXPECT_EQ(limits_->pending_requests.load(), 0u) << "no place is given up twice";
  EXPECT_EQ(dispatcher_.pending(), 0u);
}

TEST_F(LoopDispatcherTest, RequestsAnsweredBeforeTheirHungWorkerHasEndedLeaveTheirPlacesToOthers) {
  Add(1);
  limits_->max_pending_requests = 1;
  Sink sink;
  ASSERT_TRUE(Submit(&sink).ok());
  workers_[0]->Take()->mark_of(0)->SetRunning(3);
  dispatcher_.GiveUp(1, 3);
  ASSERT_EQ(sink.errors, (std::vector<ErrorKind>{ErrorKind::kTimedOut}));
  EXPECT_TRUE(dispatcher_.Full().ok());
  dispatcher_.RemoveWorker(1, "ended");
  EXPECT_EQ(limits_->pending_requests.load(), 0u);
  EXPECT_EQ(dispatcher_.pending(), 0u);
}

TEST_F(LoopDispatcherTest, WhoWouldWaitTooLongIsRefusedAtOnce) {
  Sink sink;
  FillQueue(Add(1), &sink);
  const auto deadline_in = [this](int64_t ms) { return clock_.NowNs() + ms * kNanosPerMilli; };
  const Status refused = Submit(&sink, 1, nullptr, 0, deadline_in(700));
  EXPECT_EQ(refused.kind(), ErrorKind::kOverloaded);
  EXPECT_NE(refused.message().find("deadline"), std::string::npos);
  EXPECT_TRUE(Submit(&sink, 1, nullptr, 0, deadline_in(900)).ok());
  EXPECT_TRUE(Submit(&sink).ok()) << "no deadline, no limit";
  limits_->max_queue_ns = 400 * kNanosPerMilli;
  EXPECT_EQ(Submit(&sink).kind(), ErrorKind::kOverloaded);
  MethodTarget target;
  EXPECT_EQ(dispatcher_.Find("add", 0, "sum", kNoDeadline, &target).kind(), ErrorKind::kOverloaded)
      << "before anything is decoded";
  limits_->max_queue_ns = kNanosPerSecond;
  EXPECT_EQ(dispatcher_.Find("add", 0, "sum", deadline_in(700), &target).kind(), ErrorKind::kOverloaded) << "likewise";
  EXPECT_TRUE(dispatcher_.long_queue());
  EXPECT_TRUE(dispatcher_.Find("add", 0, "sum", deadline_in(900), &target).ok());
  EXPECT_TRUE(Submit(&sink).ok());
  EXPECT_EQ(dispatcher_.stats().refused.load(), 4u);
}

TEST_F(LoopDispatcherTest, WhenNothingMoreMayWaitNoRequestIsLookedAt) {
  FakeWorker* worker = Add(1);
  Sink sink;
  EXPECT_TRUE(dispatcher_.Full().ok());
  limits_->max_pending_requests = 1;
  ASSERT_TRUE(Submit(&sink).ok());
  const Status full = dispatcher_.Full();
  EXPECT_EQ(full.kind(), ErrorKind::kOverloaded);
  EXPECT_EQ(full.message(), "enqueued requests count exceeds the limit 1");
  EXPECT_FALSE(dispatcher_.long_queue()) << "one request that waits is no long queue: the next may find it empty";
  EXPECT_EQ(dispatcher_.stats().refused.load(), 1u);
  worker->Answer(worker->Take()->request, 0, 1, 1);
  Turn();
  EXPECT_TRUE(dispatcher_.Full().ok());
  limits_->max_pending_requests = 100;
  FillQueue(worker, &sink);
  limits_->max_pending_requests = 60;
  EXPECT_FALSE(dispatcher_.Full().ok());
  EXPECT_TRUE(dispatcher_.long_queue());
  Add(2);
  EXPECT_FALSE(dispatcher_.Full().ok());
  EXPECT_FALSE(dispatcher_.long_queue()) << "one of the workers is idle";
}

TEST_F(LoopDispatcherTest, HealthOfAServableAndOfEachVersion) {
  const auto gate = std::make_shared<VersionGate>(false);
  EXPECT_EQ(dispatcher_.Health("add", 0), ServableHealth::kUnknown);
  Add(1, 1);
  Add(2, 2, gate);
  EXPECT_EQ(dispatcher_.Health("add", 0), ServableHealth::kServing);
  EXPECT_EQ(dispatcher_.Health("add", 1), ServableHealth::kServing);
  EXPECT_EQ(dispatcher_.Health("add", 2), ServableHealth::kNotServing) << "its gate is closed";
  EXPECT_EQ(dispatcher_.Health("add", 3), ServableHealth::kUnknown);
  EXPECT_EQ(dispatcher_.Health("other", 0), ServableHealth::kUnknown);
  dispatcher_.RemoveWorker(1, "gone");
  EXPECT_EQ(dispatcher_.Health("add", 1), ServableHealth::kNotServing) << "known, but without a worker";
  EXPECT_EQ(dispatcher_.Health("add", 0), ServableHealth::kNotServing);
  gate->store(true);
  EXPECT_EQ(dispatcher_.Health("add", 2), ServableHealth::kServing);
  EXPECT_EQ(dispatcher_.Health("add", 0), ServableHealth::kServing);
  dispatcher_.DropVersion("add", 1);
  EXPECT_EQ(dispatcher_.Health("add", 1), ServableHealth::kUnknown);
}

TEST_F(LoopDispatcherTest, NewWorkerIsNotThoughtBusyWithTheOldOnesQueue) {
  Sink sink;
  FillQueue(Add(1), &sink);
  dispatcher_.RemoveWorker(1, "gone");
  Add(2);
  EXPECT_TRUE(Submit(&sink, 1, nullptr, 0, clock_.NowNs() + kNanosPerMilli).ok());
}

TEST_F(LoopDispatcherTest, BytesInFlightAreBoundedAndGivenBack) {
  FakeWorker* worker = Add(1);
  ByteBudget& budget = limits_->bytes_in_flight;
  Sink sink;
  ASSERT_TRUE(Submit(&sink).ok());
  const uint64_t one = budget.used();
  ASSERT_GT(one, 0u);
  budget.set_limit(2 * one);
  RequestTicket cancelled = 0;
  ASSERT_TRUE(Submit(&sink, 1, &cancelled).ok());
  const Status refused = Submit(&sink);
  EXPECT_EQ(refused.kind(), ErrorKind::kOverloaded);
  EXPECT_NE(refused.message().find("bytes in flight exceed the limit " + std::to_string(2 * one)), std::string::npos);
  worker->Answer(worker->Take()->request, 0, 1, 1);
  dispatcher_.Cancel(cancelled);
  Turn();
  EXPECT_EQ(budget.used(), one) << "the worker may still be reading a cancelled request";
  EXPECT_TRUE(Submit(&sink).ok());
  for (int i = 0; i < 2; ++i) {
    worker->Answer(worker->Take()->request, 0, 1, 1);
  }
  Turn();
  EXPECT_EQ(budget.used(), 0u);
}

TEST_F(LoopDispatcherTest, DamagedAnswerFailsItsRequestAlone) {
  FakeWorker* worker = Add(1);
  Sink damaged;
  Sink sound;
  ASSERT_TRUE(Submit(&damaged).ok());
  ASSERT_TRUE(Submit(&sound).ok());
  const uint64_t first = worker->Take()->request;
  worker->AnswerNonsense(first);
  worker->AnswerNonsense(first + 12345);
  worker->Answer(worker->Take()->request, 0, 1, 4);
  Turn();
  EXPECT_EQ(damaged.errors, (std::vector<ErrorKind>{ErrorKind::kInternal}));
  EXPECT_EQ(sound.values, (std::vector<float>{4}));
}

TEST_F(LoopDispatcherTest, MemoryOfLargeTensorsGoesBackWhenIdle) {
  FakeWorker* worker = Add(1);
  MethodTarget target;
  ASSERT_TRUE(dispatcher_.Find("add", 0, "sum", kNoDeadline, &target).ok());
  const std::vector<float> numbers(1 << 20, 1.0F);
  RequestInstances request;
  request.count = 1;
  request.tensors.resize(1);
  request.tensors[0].data = reinterpret_cast<const uint8_t*>(numbers.data());
  request.tensors[0].bytes = numbers.size() * sizeof(float);
  request.tensors[0].dtype = DataType::kFloat32;
  request.tensors[0].rank = 1;
  request.tensors[0].dims[0] = static_cast<int64_t>(numbers.size());
  Sink sink;
  RequestTicket ticket = 0;
  ASSERT_TRUE(dispatcher_.Submit(target, request, kNoDeadline, &sink, &ticket).ok());
  RequestRecord* taken = worker->Take();
  clock_.Advance(2 * LoopDispatcher::kIdleNs);
  Turn();
  EXPECT_GE(PagesOf(*requests_), numbers.size() * sizeof(float)) << "taken away from a running request";
  worker->Answer(taken->request, 0, 1, 1);
  Turn();
  for (int i = 0; i < 2; ++i) {
    clock_.Advance(LoopDispatcher::kIdleNs + 1);
    Turn();
  }
  EXPECT_LT(PagesOf(*requests_), 64u << 10);
}

TEST_F(LoopDispatcherTest, NewestVersionWithAWorkerIsFound) {
  Add(1, 1);
  Add(2, 3);
  MethodTarget target;
  EXPECT_EQ(dispatcher_.Find("none", 0, "sum", kNoDeadline, &target).kind(), ErrorKind::kServableUnavailable);
  EXPECT_EQ(dispatcher_.Find("add", 2, "sum", kNoDeadline, &target).kind(), ErrorKind::kServableUnavailable);
  EXPECT_EQ(dispatcher_.Find("add", 0, "none", kNoDeadline, &target).kind(), ErrorKind::kMethodUnavailable);
  Sink sink;
  ASSERT_TRUE(Submit(&sink).ok());
  EXPECT_NE(workers_[1]->Take(), nullptr);
  ASSERT_TRUE(Submit(&sink, 1, nullptr, 1).ok());
  EXPECT_NE(workers_[0]->Take(), nullptr);
  dispatcher_.RemoveWorker(2, "gone");
  ASSERT_TRUE(Submit(&sink).ok());
  EXPECT_NE(workers_[0]->Take(), nullptr);
}

TEST_F(LoopDispatcherTest, OnlyAVersionWhoseGateIsOpenIsFound) {
  const auto gate = std::make_shared<VersionGate>(false);
  FakeWorker* old_worker = Add(1, 1);
  FakeWorker* new_worker = Add(2, 2, gate);
  Sink sink;
  EXPECT_EQ(Submit(&sink, 1, nullptr, 2).kind(), ErrorKind::kServableUnavailable);
  ASSERT_TRUE(Submit(&sink).ok());
  EXPECT_NE(old_worker->Take(), nullptr);
  *gate = true;
  ASSERT_TRUE(Submit(&sink).ok());
  ASSERT_TRUE(Submit(&sink, 1, nullptr, 2).ok());
  EXPECT_NE(new_worker->Take(), nullptr);
  EXPECT_NE(new_worker->Take(), nullptr);
  *gate = false;
  const Status refused = Submit(&sink, 1, nullptr, 2);
  EXPECT_NE(refused.message().find("version 2 of servable 'add' is not available"), std::string::npos);
  ASSERT_TRUE(Submit(&sink).ok());
  EXPECT_NE(old_worker->Take(), nullptr);
}

TEST_F(LoopDispatcherTest, VersionIsDrainedWithItsLastRequest_CancelledOnesToo) {
  FakeWorker* worker = Add(1);
  Sink sink;
  RequestTicket cancelled = 0;
  ASSERT_TRUE(Submit(&sink, 2, nullptr, 1).ok());
  ASSERT_TRUE(Submit(&sink, 1, &cancelled, 1).ok());
  dispatcher_.Cancel(cancelled);
  int drained = 0;
  dispatcher_.WhenDrained("add", 1, [&drained] { ++drained; });
  worker->Answer(worker->Take()->request, 0, 1, 1);
  Turn();
  EXPECT_EQ(drained, 0);
  worker->Answer(worker->Take()->request, 0, 1, 1);
  worker->Answer(uint64_t{1} << 32, 1, 1, 1);  // the first request's other half
  Turn();
  EXPECT_EQ(drained, 1);
  dispatcher_.WhenDrained("add", 1, [&drained] { ++drained; });
  dispatcher_.WhenDrained("none", 1, [&drained] { ++drained; });
  EXPECT_EQ(drained, 3);
}

TEST_F(LoopDispatcherTest, DroppedVersionAnswersWhatItHas_AndMayComeBack) {
  Add(1, 1);
  Add(2, 2);
  Sink sink;
  ASSERT_TRUE(Submit(&sink, 3, nullptr, 2).ok());
  dispatcher_.DropVersion("add", 7);
  dispatcher_.DropVersion("add", 2);
  EXPECT_EQ(sink.errors, (std::vector<ErrorKind>(3, ErrorKind::kWorkerUnavailable)));
  EXPECT_EQ(dispatcher_.pending(), 0u);
  dispatcher_.RemoveWorker(2, "gone");
  EXPECT_EQ(Submit(&sink, 1, nullptr, 2).kind(), ErrorKind::kServableUnavailable);
  FakeWorker* again = Add(3, 2);
  ASSERT_TRUE(Submit(&sink, 1, nullptr, 2).ok());
  again->Answer(again->Take()->request, 0, 1, 9);
  Turn();
  EXPECT_EQ(sink.values, (std::vector<float>{9}));
}

TEST_F(LoopDispatcherTest, InputsThatEndThreeDeviceWorkersBehindAnExtraOneAreRefused_OneDeathCountsOnce) {
  workers_.push_back(std::make_unique<FakeWorker>(1, requests_));
  const std::shared_ptr<WorkerLink> link = workers_.back()->Link();
  link->extra = true;
  ServableSignature signature{"add", 1, {{"sum", {"x"}, {"y"}}}};
  signature.methods[0].has_python = true;
  dispatcher_.AddWorker(signature, requests_, link);
  dispatcher_.JoinWorker(1);
  Sink sink;
  const auto lose = [&](uint64_t device) {
    ASSERT_TRUE(Submit(&sink).ok());
    RequestRecord* record = workers_[0]->Take();
    record->mark_of(0)->AddLost(InstanceMark::ShortName(device));
    workers_[0]->Answer(record->request, 0, 1, 0, "the device worker ended");
    Turn();
  };
  for (const uint64_t device : {7, 7, 8, 7, 8}) {
    lose(device);
  }
  ASSERT_TRUE(SubmitValues(&sink, {1}).ok()) << "other inputs are run";
  workers_[0]->Answer(workers_[0]->Take()->request, 0, 1, 2);
  Turn();
  lose(9);
  const Status refused = Submit(&sink);
  EXPECT_EQ(refused.message(), kRefusedText);
}

TEST_F(LoopDispatcherTest, WorkerTakesRequestsOnceItsProbeIsBackAndItHasJoined) {
  FakeWorker* worker = AddNewcomer(1);
  std::vector<Status> answers;
  dispatcher_.ProbeWorker(1, [&](const Status& status) { answers.push_back(status); });
  Turn();
  Sink sink;
  EXPECT_EQ(Submit(&sink).kind(), ErrorKind::kServableUnavailable);
  EXPECT_EQ(dispatcher_.Health("add", 1), ServableHealth::kNotServing);
  RequestRecord* probe = worker->Take();
  ASSERT_NE(probe, nullptr);
  EXPECT_EQ(probe->method, kProbeMethod);
  EXPECT_EQ(probe->instances, 1U);
  EXPECT_EQ(probe->inputs, 0U);
  EXPECT_TRUE(answers.empty());

  worker->AnswerProbe();
  Turn();
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_TRUE(answers[0].ok());
  EXPECT_EQ(Submit(&sink).kind(), ErrorKind::kServableUnavailable) << "it has not joined";
  dispatcher_.JoinWorker(1);
  EXPECT_EQ(dispatcher_.Health("add", 1), ServableHealth::kServing);
  ASSERT_TRUE(Submit(&sink).ok());
  worker->Answer(worker->Take()->request, 0, 1, 3);
  Turn();
  EXPECT_EQ(sink.values, std::vector<float>{3});
  EXPECT_EQ(worker->BlocksOut(), 0U);
}

TEST_F(LoopDispatcherTest, ProbeThatFailsIsTold_OneOfADeadWorkerIsForgotten) {
  FakeWorker* first = AddNewcomer(1);
  std::vector<Status> answers;
  const auto keep = [&](const Status& status) { answers.push_back(status); };
  dispatcher_.ProbeWorker(1, keep);
  Turn();
  first->AnswerProbe(ErrorKind::kOverloaded, "no room on the way");
  Turn();
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].message(), "no room on the way");
  dispatcher_.RemoveWorker(1, "it died");

  AddNewcomer(2);
  dispatcher_.ProbeWorker(2, keep);
  Turn();
  dispatcher_.RemoveWorker(2, "it died");
  dispatcher_.JoinWorker(2);
  Turn();
  EXPECT_EQ(answers.size(), 1U);
  Sink sink;
  EXPECT_EQ(Submit(&sink).kind(), ErrorKind::kServableUnavailable);
}

TEST_F(LoopDispatcherTest, ProbeWaitsForRoomInTheRequestMemory) {
  FakeWorker* busy = Add(1);
  Sink sink;
  for (const size_t instances : {1000, 100, 10, 1}) {
    Status status;
    while (status.ok()) {
      status = Submit(&sink, instances);
    }
    ASSERT_NE(status.message().find("request memory"), std::string::npos) << status.message();
  }
  FakeWorker* newcomer = AddNewcomer(2);
  bool answered = false;
  dispatcher_.ProbeWorker(2, [&](const Status&) { answered = true; });
  Turn();
  EXPECT_EQ(newcomer->Take(), nullptr);
  for (int i = 0; i < 2; ++i) {  // the memory that two leave is what small blocks are cut from
    busy->Answer(busy->Take()->request, 0, 1000, 1);
    Turn();
  }
  ASSERT_NE(newcomer->Take(), nullptr);
  newcomer->AnswerProbe();
  Turn();
  EXPECT_TRUE(answered);
}

}  // namespace
}  // namespace msserving
