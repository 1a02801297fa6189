// A worker whose next request comes quickly: it looks for it before it blocks.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>

#include "support/worker_under_test.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

// So long that no request of a test comes too late for it, however busy the machine is.
ExecutorOptions Spinning() {
  ExecutorOptions options;
  options.spin_ns = 100 * kNanosPerSecond;
  return options;
}

void AddModel(WorkerUnderTest* worker) {
  ModelOptions with_batch;
  with_batch.with_batch_dim = true;
  worker->executor.AddModel(MakeModel(AddOptions(), with_batch));
}

// One request after the other, each answered rightly.
void Ask(WorkerUnderTest* worker, int times) {
  for (int i = 0; i < times; ++i) {
    const auto first = static_cast<float>(i);
    const auto answers =
        worker->server.Wait(worker->server.Send(0, 2, {Floats({2}, {first, 1}), Floats({2}, {10, 20})}));
    ASSERT_EQ(answers[0].error, ErrorKind::kOk) << answers[0].message;
    ASSERT_EQ(answers[0].outputs[0].As<float>()[0], first + 10);
  }
}

TEST(ExecutorSpin, RequestsThatComeQuicklyWakeNobody) {
  WorkerUnderTest worker(Spinning());
  AddModel(&worker);
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  worker.Start();
  Ask(&worker, 1000);
  EXPECT_LE(worker.executor.stats().wakeups, SpinGate::kFewest + 2);
  EXPECT_EQ(worker.Stop(), RunEnd::kStopped);  // while it looks
}

TEST(ExecutorSpin, WithoutALimitEveryRequestWakesAThread) {
  WorkerUnderTest worker;
  AddModel(&worker);
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  worker.Start();
  // The worker may find a request before it has gone to sleep; hardly ever so often.
  Ask(&worker, 500);
  EXPECT_GT(worker.executor.stats().wakeups, 0U);
  EXPECT_EQ(worker.Stop(), RunEnd::kStopped);
}

TEST(ExecutorSpin, AServerThatGoesEndsTheLooking) {
  WorkerUnderTest worker(Spinning());
  AddModel(&worker);
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  RunHooks hooks;
  std::atomic<bool> interrupted{false};
  hooks.interrupted = [&] { return interrupted.load(); };
  worker.Start(hooks);
  Ask(&worker, 200);
  interrupted = true;
  EXPECT_EQ(worker.Join(), RunEnd::kInterrupted);
}

// Two threads share the work, and each lets the other one look.
TEST(ExecutorSpin, PythonAndTheModelTakeTurnsAsEver) {
  WorkerUnderTest worker(Spinning());
  AddModel(&worker);
  worker.OnPython([](const PythonStageCall& call) {
    for (uint32_t i = 0; i < call.instances; ++i) {
      call.sink->Put(i, 0, call.input[i * call.inputs]);
    }
  });
  ASSERT_TRUE(worker.executor
                  .AddMethod(Method("mixed", {"x1", "x2"}, {"y"},
                                    {PythonStage(0, {{0, 0}}, "Preprocess"), ModelStage({{1, 0}, {0, 1}})}, {{2, 0}}))
                  .ok());
  worker.Start();
  Ask(&worker, 300);
  std::vector<uint64_t> ids;
  for (int round = 0; round < 20; ++round) {
    for (int i = 0; i < 40; ++i) {
      ids.push_back(worker.server.Send(0, 2, {Floats({2}, {1, 1}), Floats({2}, {10, 20})}));
    }
    for (const uint64_t id : ids) {
      ASSERT_EQ(worker.server.Wait(id)[0].outputs[0].As<float>()[0], 11);
    }
    ids.clear();
  }
  EXPECT_EQ(worker.Stop(), RunEnd::kStopped);
  EXPECT_EQ(worker.executor.stats().live_instances, 0U);
}

// What a thread of the user's asks for while a thread looks is found by that thread, too.
TEST(ExecutorSpin, CallsAreServedWhileAThreadLooks) {
  WorkerUnderTest worker(Spinning());
  AddModel(&worker);
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  worker.Start();
  Ask(&worker, 200);
  std::vector<OwnedTensor> tensors = {Floats({2}, {1, 2}), Floats({2}, {10, 20})};
  for (int i = 0; i < 100; ++i) {
    const std::vector<TensorView> inputs = {tensors[0].View(), tensors[1].View()};
    float sum = 0;
    const Status status = worker.executor.Call(0, 1, inputs, [&](const CallResults& results) {
      ASSERT_EQ(results.error(0), ErrorKind::kOk);
      std::memcpy(&sum, results.output(0, 0).data, sizeof(sum));
    });
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(sum, 11);
  }
  EXPECT_EQ(worker.Stop(), RunEnd::kStopped);
}

}  // namespace
}  // namespace msserving
