// Requests and their replies, memory, versions that come and go.
#include <gtest/gtest.h>

#include <vector>

#include "loop_dispatcher_fixture.h"

namespace msserving {
namespace {

using testing::FakeWorker;
using testing::LoopDispatcherTest;
using testing::Sink;

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

}  // namespace
}  // namespace msserving
