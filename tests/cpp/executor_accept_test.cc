// What the executor takes from its channels and does not run.
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "executor_fixture.h"
#include "support/gate.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

TEST(Executor, DeadlinePassedInQueueIsNotRun) {
  Gate gate;
  WorkerUnderTest worker;
  AddModelWorker(&worker, gate.Options());
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  worker.Start();
  std::vector<OwnedTensor> four;
  for (int i = 0; i < 4; ++i) {
    four.push_back(Row(1, 1));
    four.push_back(Row(1, 1));
  }
  const uint64_t first = worker.server.Send(0, 2, std::move(four));
  gate.AwaitRun();
  const int64_t deadline_ns = RealClock().NowNs() + 5 * kNanosPerMilli;
  const uint64_t late = worker.server.Send(0, 2, Pair(1), deadline_ns);
  const uint64_t patient = worker.server.Send(0, 2, Pair(1));
  ASSERT_TRUE(Eventually([&] { return RealClock().NowNs() > deadline_ns; }));
  gate.OpenForGood();
  EXPECT_EQ(worker.server.Wait(late)[0].error, ErrorKind::kDeadlineExceeded);
  EXPECT_EQ(worker.server.Wait(patient)[0].error, ErrorKind::kOk);
  worker.server.Wait(first);
  worker.Stop();
  EXPECT_EQ(worker.executor.stats().expired, 1U);
  EXPECT_EQ(worker.executor.stats().stages[0].instances, 5U);
}

TEST(Executor, CancelledInQueueIsNotRun) {
  WorkerUnderTest worker;
  AddModelWorker(&worker);
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  const uint64_t cancelled = worker.server.Queue(0, 2, Pair(1));
  worker.server.Record(cancelled)->cancelled = 1;
  const uint64_t other = worker.server.Queue(0, 2, Pair(2));
  worker.Start();
  EXPECT_EQ(worker.server.Wait(cancelled)[0].error, ErrorKind::kCancelled);
  EXPECT_EQ(worker.server.Wait(other)[0].error, ErrorKind::kOk);
  worker.Stop();
  EXPECT_EQ(worker.executor.stats().stages[0].model.rows, 1U);
}

TEST(Executor, CancelledBetweenStagesIsNotRunFurther) {
  WorkerUnderTest worker;
  AddModelWorker(&worker);
  RequestRecord* record = nullptr;
  worker.OnPython([&](const PythonStageCall& call) {
    record->cancelled = 1;
    PlusOne(call);
  });
  ASSERT_TRUE(worker.executor.AddMethod(MixedGraph()).ok());
  const uint64_t id = worker.server.Queue(0, 2, Pair(1));
  record = worker.server.Record(id);
  worker.Start();
  EXPECT_EQ(worker.server.Wait(id)[0].error, ErrorKind::kCancelled);
  worker.Stop();
  const ExecutorStats stats = worker.executor.stats();
  EXPECT_EQ(stats.stages[0].instances, 1U);
  EXPECT_EQ(stats.stages[1].instances + stats.stages[2].instances, 0U);
}

TEST(Executor, InstanceOrderedAloneIsRunAlone_RefusedOnesAreNotRun) {
  WorkerUnderTest worker;
  AddModelWorker(&worker);
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  std::vector<OwnedTensor> tensors;
  for (int i = 0; i < 4; ++i) {
    for (OwnedTensor& tensor : Pair(static_cast<float>(i))) {
      tensors.push_back(std::move(tensor));
    }
  }
  const uint64_t id = worker.server.Queue(0, 2, std::move(tensors));
  auto* record = reinterpret_cast<RequestRecord*>(worker.server.requests_memory().base());
  record->mark_of(1)->order = static_cast<uint8_t>(InstanceOrder::kRunAlone);
  record->mark_of(2)->order = static_cast<uint8_t>(InstanceOrder::kRefuse);
  record->mark_of(3)->order = static_cast<uint8_t>(InstanceOrder::kGivenUp);
  worker.Start();
  const auto answers = worker.server.Wait(id);
  EXPECT_EQ(answers[0].error, ErrorKind::kOk);
  EXPECT_EQ(answers[1].error, ErrorKind::kOk);
  EXPECT_EQ(answers[2].error, ErrorKind::kStageFailed);
  EXPECT_EQ(answers[2].message, kRefusedText);
  EXPECT_EQ(answers[3].error, ErrorKind::kTimedOut);
  worker.Stop();
  EXPECT_EQ(worker.executor.stats().stages[0].model.runs, 2U);
}

TEST(Executor, NonsenseInTheRequestRingEndsTheRun) {
  WorkerUnderTest worker;
  AddModelWorker(&worker);
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  worker.Start();
  worker.server.requests().Push(MakeEntry(1, 1 << 30, 1 << 20));
  worker.server.Ring();
  EXPECT_EQ(worker.Join(), RunEnd::kBroken);
  EXPECT_NE(worker.status().message().find("damaged"), std::string::npos);
}

}  // namespace
}  // namespace msserving
