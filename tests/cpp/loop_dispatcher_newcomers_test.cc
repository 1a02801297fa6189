// Workers get requests once a probe has come back.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "loop_dispatcher_fixture.h"

namespace msserving {
namespace {

using testing::FakeWorker;
using testing::LoopDispatcherTest;
using testing::Sink;

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
