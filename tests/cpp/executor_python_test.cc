// Python stages in the worker's executor: batches, failures, marks, overlap with the device.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "executor_fixture.h"
#include "support/gate.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

TEST(Executor, PythonStagesAroundAModel) {
  WorkerUnderTest worker;
  AddModelWorker(&worker);
  worker.OnPython(PlusOne);
  ASSERT_TRUE(worker.executor.AddMethod(MixedGraph()).ok());
  worker.Start();
  std::vector<uint64_t> ids;
  for (int i = 0; i < 50; ++i) {
    ids.push_back(worker.server.Send(0, 2, Pair(static_cast<float>(i))));
  }
  for (int i = 0; i < 50; ++i) {
    const Answer answer = worker.server.Wait(ids[static_cast<size_t>(i)])[0];
    ASSERT_EQ(answer.error, ErrorKind::kOk) << answer.message;
    EXPECT_EQ(answer.outputs[0].As<float>(), (std::vector<float>{static_cast<float>(i) + 12, 23}));
    EXPECT_EQ(answer.outputs[1].As<float>()[0], static_cast<float>(i));
  }
  EXPECT_EQ(worker.Stop(), RunEnd::kStopped);
}

TEST(Executor, FailedPythonStageNamesItsTagAndFailsAlone) {
  WorkerUnderTest worker;
  AddModelWorker(&worker);
  worker.OnPython(PlusOne);
  ASSERT_TRUE(worker.executor.AddMethod(MixedGraph()).ok());
  worker.Start();
  std::vector<OwnedTensor> tensors;
  for (const float first : {1.0F, 99.0F, 88.0F}) {
    tensors.push_back(Row(first, 0));
    tensors.push_back(Row(10, 0));
  }
  const auto answers = worker.server.Wait(worker.server.Send(0, 2, std::move(tensors)));
  EXPECT_EQ(answers[0].error, ErrorKind::kOk);
  EXPECT_EQ(answers[1].error, ErrorKind::kStageFailed);
  EXPECT_EQ(answers[1].message, "Preprocess Failed: ValueError: ninety-nine");
  EXPECT_EQ(answers[2].error, ErrorKind::kStageFailed);  // 88 + 1 + 10 is refused after the model
  EXPECT_EQ(answers[2].message, "Postprocess Failed: ValueError: ninety-nine");
}

TEST(Executor, FailureTextOfAStageReplacesItsTag) {
  WorkerUnderTest worker;
  AddModelWorker(&worker, {{"fail_if_first_element", "13"}});
  worker.OnPython(PlusOne);
  MethodGraph graph = MixedGraph();
  graph.stages[0].failure = "Call cast Failed, method 'mixed', stage 1";
  graph.stages[1].failure = "Predict Failed, method 'mixed', stage 2";
  ASSERT_TRUE(worker.executor.AddMethod(graph).ok());
  worker.Start();
  const auto answers = worker.server.Wait(
      worker.server.Send(0, 2, {Row(99, 0), Row(10, 0), Row(12, 0), Row(10, 0), Row(88, 0), Row(10, 0)}));
  EXPECT_EQ(answers[0].message, "Call cast Failed, method 'mixed', stage 1: ValueError: ninety-nine");
  EXPECT_TRUE(answers[1].message.starts_with("Predict Failed, method 'mixed', stage 2: ")) << answers[1].message;
  EXPECT_EQ(answers[2].message, "Postprocess Failed: ValueError: ninety-nine");
}

TEST(Executor, PythonStageWithoutAResultFailsThatInstance) {
  WorkerUnderTest worker;
  worker.OnPython([](const PythonStageCall& call) {
    for (uint32_t i = 1; i < call.instances; ++i) {
      call.sink->Put(i, 0, call.input[i * call.inputs]);
    }
  });
  ASSERT_TRUE(
      worker.executor.AddMethod(Method("f", {"x"}, {"y"}, {PythonStage(0, {{0, 0}}, "Preprocess")}, {{1, 0}})).ok());
  worker.Start();
  const auto answers = worker.server.Wait(worker.server.Send(0, 1, {Row(1, 2), Row(3, 4)}));
  EXPECT_EQ(answers[0].message, "Preprocess Failed: it gave no result for output 0");
  EXPECT_EQ(answers[1].outputs[0].As<float>(), (std::vector<float>{3, 4}));
}

TEST(Executor, PythonIsCalledOncePerBatch) {
  WorkerUnderTest worker;
  std::atomic<int> calls{0};
  std::atomic<uint32_t> instances{0};
  worker.OnPython([&](const PythonStageCall& call) {
    ++calls;
    instances += call.instances;
    PlusOne(call);
  });
  ASSERT_TRUE(
      worker.executor.AddMethod(Method("f", {"x"}, {"y"}, {PythonStage(0, {{0, 0}}, "Preprocess")}, {{1, 0}})).ok());
  std::vector<uint64_t> ids;
  for (int i = 0; i < 40; ++i) {
    ids.push_back(worker.server.Queue(0, 1, {Row(1, 2)}));
  }
  worker.Start();
  for (const uint64_t id : ids) {
    worker.server.Wait(id);
  }
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(instances, 40U);
}

TEST(Executor, InPlaceChangesReachLaterStagesButNotTheRequestBlock) {
  WorkerUnderTest worker;
  worker.OnPython([](const PythonStageCall& call) {
    EXPECT_EQ(call.write_back[0], 1);
    float seen = 0;
    std::memcpy(&seen, call.input[0].data, sizeof(seen));
    const float changed = seen * 2;
    std::memcpy(const_cast<uint8_t*>(call.input[0].data), &changed, sizeof(changed));
    call.sink->Put(0, 0, call.input[0]);
  });
  ASSERT_TRUE(worker.executor
                  .AddMethod(Method("f", {"x"}, {"y", "x"}, {PythonStage(0, {{0, 0}}, "Preprocess")}, {{1, 0}, {0, 0}}))
                  .ok());
  const uint64_t id = worker.server.Queue(0, 1, {Row(21, 2)});
  RequestRecord* record = worker.server.Record(id);
  worker.Start();
  while (!worker.server.Done(id)) {
    worker.server.TakeReplies();
  }
  float original = 0;
  std::memcpy(&original, worker.server.requests_memory().base() + record->tensors()[0].offset, sizeof(original));
  EXPECT_EQ(original, 21);
  EXPECT_EQ(record->touched.load(), 0U);
  const Answer answer = worker.server.Wait(id)[0];
  EXPECT_EQ(answer.outputs[0].As<float>()[0], 42);
  EXPECT_EQ(answer.outputs[1].As<float>()[0], 42);
}

TEST(Executor, LargeInputOfPythonMarksTheRequestTouchedFirst) {
  WorkerUnderTest worker;
  std::atomic<uint32_t> touched{7};
  RequestRecord* record = nullptr;
  worker.OnPython([&](const PythonStageCall& call) {
    touched = record->touched.load();
    const int64_t answer = 5;
    TensorView view;
    view.data = reinterpret_cast<const uint8_t*>(&answer);
    view.bytes = sizeof(answer);
    view.dtype = DataType::kInt64;
    call.sink->Put(0, 0, view);
  });
  ASSERT_TRUE(
      worker.executor.AddMethod(Method("f", {"x"}, {"y"}, {PythonStage(0, {{0, 0}}, "Preprocess")}, {{1, 0}})).ok());
  const uint64_t id = worker.server.Queue(0, 1, {Floats({20'000}, std::vector<float>(20'000, 1))});
  record = worker.server.Record(id);
  worker.Start();
  EXPECT_EQ(worker.server.Wait(id)[0].outputs[0].As<int64_t>()[0], 5);
  EXPECT_EQ(touched, 1U);
}

TEST(Executor, PythonAndDeviceOverlap) {
  Gate gate;
  WorkerUnderTest worker;
  AddModelWorker(&worker, gate.Options());
  std::atomic<int> python_runs{0};
  worker.OnPython([&](const PythonStageCall& call) {
    ++python_runs;
    PlusOne(call);
  });
  ASSERT_TRUE(worker.executor
                  .AddMethod(Method("pre", {"x1", "x2"}, {"y"},
                                    {PythonStage(0, {{0, 0}}, "Preprocess"), ModelStage({{1, 0}, {0, 1}})}, {{2, 0}}))
                  .ok());
  worker.Start();
  const uint64_t first = worker.server.Send(0, 2, Pair(1));
  gate.AwaitRun();
  const uint64_t second = worker.server.Send(0, 2, Pair(2));
  EXPECT_TRUE(Eventually([&] { return python_runs == 2; })) << "waits for the device";
  gate.OpenForGood();
  worker.server.Wait(first);
  worker.server.Wait(second);
}

// What a dead worker was doing can be read from the request blocks.
TEST(Executor, MarksExactlyTheInstancesThatUserCodeIsCalledWith) {
  WorkerUnderTest worker;
  MethodGraph graph;
  graph.signature = {"twice", {"x"}, {"y"}};
  graph.stages = {{StageKind::kPython, 0, 0, {{0, 0}}, 1}};
  graph.returns = {{1, 0}};
  auto* slab = worker.server.requests_memory().base();
  std::vector<std::string> seen;
  worker.OnPython([&](const PythonStageCall& call) {
    for (uint32_t i = 0; i < call.instances; ++i) {
      call.sink->Enter(i, 1);
      std::string marks;
      for (uint32_t k = 0; k < call.instances; ++k) {
        marks += std::to_string(reinterpret_cast<RequestRecord*>(slab)->mark_of(k)->Running());
      }
      seen.push_back(marks);
      call.sink->Put(i, 0, call.input[i]);
    }
  });
  ASSERT_TRUE(worker.executor.AddMethod(graph).ok());
  const uint64_t id = worker.server.Queue(0, 1, {Row(1, 2), Row(3, 4), Row(5, 6)});
  worker.Start();
  EXPECT_EQ(worker.server.Wait(id).size(), 3U);
  worker.Stop();
  EXPECT_EQ(seen, (std::vector<std::string>{"100", "010", "001"}));
  for (uint32_t k = 0; k < 3; ++k) {
    EXPECT_EQ(reinterpret_cast<RequestRecord*>(slab)->mark_of(k)->Running(), 0);
  }
}

}  // namespace
}  // namespace msserving
