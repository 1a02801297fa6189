// Shared memory that user code has written over: the server lives, and the damage reaches no other worker.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "loop_dispatcher_fixture.h"

namespace msserving {
namespace {

using testing::FakeWorker;
using testing::LoopDispatcherTest;
using testing::Sink;

constexpr uint32_t kScribble = 0xffffffff;

TEST_F(LoopDispatcherTest, OverwrittenRequestOfADeadWorkerFails_TheServerLives) {
  Add(1);
  Sink sink;
  ASSERT_TRUE(SubmitValues(&sink, {1, 2, 3}).ok());
  RequestRecord* record = workers_[0]->Take();
  record->mark_of(1)->SetRunning(1);
  record->inputs = kScribble;
  dispatcher_.RemoveWorker(1, "killed by signal 11");
  EXPECT_EQ(sink.errors, (std::vector<ErrorKind>(3, ErrorKind::kInternal)));
  EXPECT_NE(sink.messages.at(0).find("wrote over this request in shared memory"), std::string::npos);
  EXPECT_NE(sink.messages.at(0).find("killed by signal 11"), std::string::npos);
  EXPECT_EQ(dispatcher_.pending(), 0u);
  EXPECT_TRUE(limits_->suspects.empty()) << "what its inputs were is not known";
  FakeWorker* next = Add(2);
  ASSERT_TRUE(SubmitValues(&sink, {4}).ok());
  next->Answer(next->Take()->request, 0, 1, 8);
  Turn();
  EXPECT_EQ(sink.values, (std::vector<float>{8}));
}

TEST_F(LoopDispatcherTest, WhatWasAnsweredOfAnOverwrittenRequestCounts) {
  Add(1);
  Add(2);
  Sink sink;
  ASSERT_TRUE(SubmitValues(&sink, {1, 2}).ok());
  RequestRecord* record = workers_[0]->Take();
  workers_[0]->Answer(record->request, 0, 1, 5);
  record->inputs = kScribble;
  dispatcher_.RemoveWorker(1, "killed");
  EXPECT_EQ(sink.errors, (std::vector<ErrorKind>{ErrorKind::kOk, ErrorKind::kInternal}));
  EXPECT_EQ(sink.values, (std::vector<float>{5, -1}));
  EXPECT_EQ(workers_[1]->Take(), nullptr);
}

TEST_F(LoopDispatcherTest, OverwrittenRequestReachesNoOtherWorker_ItsNeighbourIsRetried) {
  using Damage = void (*)(RequestRecord*);
  const std::vector<std::pair<const char*, Damage>> damages = {
      {"request", [](RequestRecord* record) { ++record->request; }},
      {"method", [](RequestRecord* record) { record->method = 1; }},
      {"instances", [](RequestRecord* record) { record->instances = 1; }},
      {"no instances", [](RequestRecord* record) { record->instances = 0; }},
      {"inputs", [](RequestRecord* record) { record->inputs = kScribble; }},
      {"no inputs", [](RequestRecord* record) { record->inputs = 0; }},
      {"cancelled", [](RequestRecord* record) { record->cancelled.store(kScribble); }},
      {"offset", [](RequestRecord* record) { record->tensors()[1].offset = uint64_t{1} << 40; }},
      {"bytes", [](RequestRecord* record) { record->tensors()[1].bytes = testing::kSlab; }},
      {"dtype", [](RequestRecord* record) { record->tensors()[1].dtype = 0xff; }},
      {"rank", [](RequestRecord* record) { record->tensors()[1].rank = 0xff; }},
  };
  uint64_t id = 0;
  for (const auto& [what, damage] : damages) {
    SCOPED_TRACE(what);
    FakeWorker* dying = Add(++id);
    Sink overwritten;
    Sink healthy;
    ASSERT_TRUE(SubmitValues(&overwritten, {1, 2}).ok());
    ASSERT_TRUE(SubmitValues(&healthy, {3, 4}).ok());
    damage(dying->Take());
    ASSERT_NE(dying->Take(), nullptr);
    FakeWorker* other = Add(++id);
    dispatcher_.RemoveWorker(dying->id(), "killed");
    EXPECT_EQ(overwritten.errors, (std::vector<ErrorKind>(2, ErrorKind::kInternal)));
    RequestRecord* moved = other->Take();
    ASSERT_NE(moved, nullptr);
    float first = 0;
    std::memcpy(&first, requests_->base() + moved->tensors()[0].offset, sizeof(first));
    EXPECT_EQ(first, 3);
    EXPECT_EQ(other->Take(), nullptr);
    other->Answer(moved->request, 0, 2, 7);
    Turn();
    EXPECT_EQ(healthy.values, (std::vector<float>{7, 7}));
    EXPECT_EQ(dispatcher_.pending(), 0u);
    dispatcher_.RemoveWorker(other->id(), "done");
  }
}

TEST_F(LoopDispatcherTest, OverwrittenRequestOverItsTimeOutIsAnswered_ItsInputsAreNoSuspects) {
  Add(1);
  Sink sink;
  ASSERT_TRUE(SubmitValues(&sink, {1, 2}).ok());
  RequestRecord* record = workers_[0]->Take();
  record->mark_of(0)->SetRunning(2);
  record->mark_of(1)->SetRunning(2);
  record->inputs = kScribble;
  dispatcher_.GiveUp(1, 2);
  EXPECT_EQ(sink.errors, (std::vector<ErrorKind>(2, ErrorKind::kTimedOut)));
  EXPECT_TRUE(limits_->suspects.empty());
  dispatcher_.RemoveWorker(1, "ended");
  EXPECT_EQ(sink.replies, 1);
  EXPECT_EQ(dispatcher_.pending(), 0u);
}

TEST_F(LoopDispatcherTest, OverwrittenRequestOfAnExtraWorkerIsAnswered_ItsInputsAreNoSuspects) {
  AddExtra(1);
  Sink sink;
  ASSERT_TRUE(SubmitValues(&sink, {1, 2}).ok());
  RequestRecord* record = workers_[0]->Take();
  record->mark_of(1)->AddLost(InstanceMark::ShortName(7));
  record->inputs = kScribble;
  workers_[0]->Answer(record->request, 0, 2, 0, "the device worker ended");
  Turn();
  EXPECT_EQ(sink.errors, (std::vector<ErrorKind>(2, ErrorKind::kStageFailed)));
  EXPECT_TRUE(limits_->suspects.empty());
}

TEST_F(LoopDispatcherTest, SegmentThatChangesAfterItWasCheckedWritesNowhereElse) {
  FakeWorker* worker = Add(1);
  Sink sink;
  ASSERT_TRUE(SubmitValues(&sink, {1, 2, 3}).ok());
  const uint64_t request = worker->Take()->request;
  ReplyRecord* taken = worker->Answer(request, 0, 2, 5);
  Turn();
  ASSERT_EQ(sink.replies, 0) << "the last instance is missing";
  taken->tensors()[0].rank = 0xff;
  taken->first = 0x10000000;
  taken->count = 0x10000000;
  worker->Answer(request, 2, 1, 6);
  Turn();
  EXPECT_EQ(sink.errors, (std::vector<ErrorKind>(3, ErrorKind::kOk)));
  EXPECT_EQ(sink.values, (std::vector<float>{5, 5, 6}));
}

}  // namespace
}  // namespace msserving
