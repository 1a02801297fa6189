// How many instances a Python stage is handed at once: as many as go through in a moment.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "support/worker_under_test.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT(google-build-using-namespace)

MethodGraph PythonGraph(uint32_t batch_size) {
  Stage stage = PythonStage(0, {{0, 0}}, "work");
  stage.batch_size = batch_size;
  return Method("work", {"x"}, {"y"}, {stage}, {{1, 0}});
}

// Sends `count` requests at once to a stage that takes `each` an instance; how many it was handed each time.
std::vector<uint32_t> HandOvers(int count, std::chrono::microseconds each, uint32_t batch_size = 0) {
  WorkerUnderTest worker;
  std::mutex mutex;
  std::vector<uint32_t> handed;
  worker.OnPython([&](const PythonStageCall& call) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      handed.push_back(call.instances);
    }
    if (each.count() > 0) {
      std::this_thread::sleep_for(each * call.instances);
    }
    for (uint32_t i = 0; i < call.instances; ++i) {
      call.sink->Put(i, 0, call.input[i]);
    }
  });
  Require(worker.executor.AddMethod(PythonGraph(batch_size)));
  std::vector<uint64_t> ids;
  for (int i = 0; i < count; ++i) {
    std::vector<OwnedTensor> one;
    one.push_back(Floats({1}, {static_cast<float>(i)}));
    ids.push_back(worker.server.Queue(0, 1, std::move(one)));
  }
  worker.Start();
  for (int i = 0; i < count; ++i) {
    EXPECT_EQ(worker.server.Wait(ids[static_cast<size_t>(i)])[0].outputs[0].As<float>()[0], static_cast<float>(i));
  }
  worker.Stop();
  return handed;
}

TEST(HandOver, SlowFunctionGetsOneAtATime) {
  const std::vector<uint32_t> handed = HandOvers(20, std::chrono::milliseconds(3));
  EXPECT_EQ(handed, std::vector<uint32_t>(20, 1));
}

TEST(HandOver, FunctionThatAsksForBatchesGetsThemHoweverSlow) {
  const std::vector<uint32_t> handed = HandOvers(32, std::chrono::milliseconds(1), 8);
  EXPECT_EQ(handed, std::vector<uint32_t>(4, 8));
}

TEST(HandOver, QuickFunctionGetsManyAtOnce) {
  const std::vector<uint32_t> handed = HandOvers(500, std::chrono::microseconds(0));
  EXPECT_GT(*std::max_element(handed.begin(), handed.end()), 8U);
}

}  // namespace
}  // namespace msserving
