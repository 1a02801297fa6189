// Probes through the worker: they take the way of requests, and run nothing of the user's.
#include <gtest/gtest.h>

#include <atomic>

#include "support/gate.h"
#include "support/worker_under_test.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

TEST(Probe, WaitsForEachLaneAndRunsNothing) {
  Gate gate;
  WorkerUnderTest worker;
  SessionOptions options = AddOptions();
  const SessionOptions held = gate.Options();
  options.insert(options.end(), held.begin(), held.end());
  worker.executor.AddModel(MakeModel(options, ModelOptions{.with_batch_dim = true}));
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  ASSERT_TRUE(
      worker.executor.AddMethod(Method("python", {"x"}, {"y"}, {PythonStage(7, {{0, 0}}, "Stage")}, {{1, 0}})).ok());
  std::atomic<int> probes{0};
  std::atomic<int> others{0};
  worker.OnPython([&](const PythonStageCall& call) {
    EXPECT_EQ(call.function, 7U);
    ++(call.instances == 0 ? probes : others);
    EXPECT_EQ(call.sink->Next(), nullptr);
  });
  worker.Start();
  const uint64_t request = worker.server.Send(0, 2, {Floats({2}, {1, 2}), Floats({2}, {3, 4})});
  gate.AwaitRun();
  const uint64_t probe = worker.server.Probe();
  ASSERT_TRUE(Eventually([&] { return probes == 1; }));
  worker.server.TakeReplies();
  EXPECT_FALSE(worker.server.Done(probe)) << "the device is busy";
  gate.Open();
  const std::vector<Answer> answers = worker.server.Wait(probe);
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].error, ErrorKind::kOk) << answers[0].message;
  EXPECT_TRUE(answers[0].outputs.empty());
  worker.server.Wait(request);
  EXPECT_EQ(worker.Stop(), RunEnd::kStopped);
  EXPECT_EQ(others, 0);
  const ExecutorStats stats = worker.executor.stats();
  EXPECT_EQ(stats.requests, 1U) << "a probe is no request";
  ASSERT_EQ(stats.stages.size(), 2U) << "nor a stage";
  EXPECT_EQ(stats.stages[0].model.runs, 1U);
}

TEST(Probe, ComesBackFromAWorkerWithoutMethods) {
  WorkerUnderTest worker;
  worker.Start();
  EXPECT_EQ(worker.server.Wait(worker.server.Probe())[0].error, ErrorKind::kOk);
  EXPECT_EQ(worker.Stop(), RunEnd::kStopped);
}

TEST(Probe, WithInputsIsNonsense) {
  WorkerUnderTest worker;
  worker.Start();
  worker.server.Queue(kProbeMethod, 1, {Floats({2}, {1, 2})});
  worker.server.Ring();
  EXPECT_EQ(worker.Join(), RunEnd::kBroken);
}

}  // namespace
}  // namespace msserving
