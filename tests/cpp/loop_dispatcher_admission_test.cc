// Which worker is asked, and who is refused.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "loop_dispatcher_fixture.h"

namespace msserving {
namespace {

using testing::FakeWorker;
using testing::LoopDispatcherTest;
using testing::Sink;

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

}  // namespace
}  // namespace msserving
