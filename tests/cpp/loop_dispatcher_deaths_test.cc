// What becomes of requests whose worker dies or hangs, and of the inputs that it died on.
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

TEST_F(LoopDispatcherTest, InputsThatEndThreeDeviceWorkersBehindAnExtraOneAreRefused_OneDeathCountsOnce) {
  AddExtra(1);
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

}  // namespace
}  // namespace msserving
