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

// One request, and when it is answered `count` more at once, to a stage that takes `each` an instance; how many of
// those it was handed each time.
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
  const auto queue = [&](int i) {
    std::vector<OwnedTensor> one;
    one.push_back(Floats({1}, {static_cast<float>(i)}));
    return worker.server.Send(0, 1, std::move(one));
  };
  worker.Start();
  worker.server.Wait(queue(0));
  std::vector<uint64_t> ids;
  for (int i = 0; i < count; ++i) {
    ids.push_back(queue(i));
  }
  for (int i = 0; i < count; ++i) {
    EXPECT_EQ(worker.server.Wait(ids[static_cast<size_t>(i)])[0].outputs[0].As<float>()[0], static_cast<float>(i));
  }
  worker.Stop();
  handed.erase(handed.begin());
  return handed;
}

TEST(HandOver, SlowFunctionGetsOneAtATime) {
  const std::vector<uint32_t> handed = HandOvers(20, std::chrono::milliseconds(3));
  EXPECT_EQ(handed, std::vector<uint32_t>(20, 1));
}

TEST(HandOver, FunctionThatAsksForBatchesGetsThemHoweverSlow) {
  const std::vector<uint32_t> handed = HandOvers(32, std::chrono::milliseconds(1), 8);
  // The first of them may be on its way alone while the others are sent.
  EXPECT_EQ(*std::max_element(handed.begin(), handed.end()), 8U);
}

TEST(HandOver, QuickFunctionGetsManyAtOnce) {
  const std::vector<uint32_t> handed = HandOvers(500, std::chrono::microseconds(0));
  EXPECT_GT(*std::max_element(handed.begin(), handed.end()), 8U);
}

}  // namespace
}  // namespace msserving
