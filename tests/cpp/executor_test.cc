// Requests through the worker's executor: batching, stages, failures, deadlines, memory.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "support/gate.h"
#include "support/worker_under_test.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

OwnedTensor Row(float a, float b) { return Floats({2}, {a, b}); }

std::vector<OwnedTensor> Pair(float first) { return {Row(first, 1), Row(10, 20)}; }

void AddModelWorker(WorkerUnderTest* worker, SessionOptions extra = {}) {
  SessionOptions options = AddOptions();
  options.insert(options.end(), extra.begin(), extra.end());
  ModelOptions with_batch;
  with_batch.with_batch_dim = true;
  worker->executor.AddModel(MakeModel(options, with_batch));
}

TEST(Executor, AnswersAModelOnlyMethod) {
  WorkerUnderTest worker;
  AddModelWorker(&worker);
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  worker.Start();
  const auto answers = worker.server.Wait(worker.server.Send(0, 2, Pair(1)));
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].error, ErrorKind::kOk) << answers[0].message;
  EXPECT_EQ(answers[0].outputs[0].As<float>(), (std::vector<float>{11, 21}));
  EXPECT_EQ(answers[0].outputs[0].view.rank, 1);
  EXPECT_EQ(worker.Stop(), RunEnd::kStopped);
}

TEST(Executor, InstancesOfOneRequestSpreadOverBatches) {
  WorkerUnderTest worker;
  AddModelWorker(&worker);
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  worker.Start();
  std::vector<OwnedTensor> tensors;
  for (int i = 0; i < 11; ++i) {
    tensors.push_back(Row(static_cast<float>(i), 0));
    tensors.push_back(Row(100, 0));
  }
  const auto answers = worker.server.Wait(worker.server.Send(0, 2, std::move(tensors)));
  ASSERT_EQ(answers.size(), 11U);
  for (size_t i = 0; i < 11; ++i) {
    ASSERT_EQ(answers[i].error, ErrorKind::kOk) << answers[i].message;
    EXPECT_EQ(answers[i].outputs[0].As<float>()[0], 100 + static_cast<float>(i));
  }
  worker.Stop();
  const ExecutorStats stats = worker.executor.stats();
  EXPECT_EQ(stats.stages[0].model.runs, 3U);  // 4 + 4 + 3
  EXPECT_EQ(stats.stages[0].model.padded, 1U);
  EXPECT_EQ(stats.live_instances, 0U);
}

TEST(Executor, RequestsShareABatch) {
  WorkerUnderTest worker;
  AddModelWorker(&worker);
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  std::vector<uint64_t> ids;
  for (int i = 0; i < 4; ++i) {
    ids.push_back(worker.server.Queue(0, 2, Pair(static_cast<float>(i))));
  }
  worker.Start();
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(worker.server.Wait(ids[i])[0].outputs[0].As<float>()[0], 10 + static_cast<float>(i));
  }
  worker.Stop();
  const StageStats stage = worker.executor.stats().stages[0];
  EXPECT_EQ(stage.model.runs, 1U);
  EXPECT_EQ(stage.releases[static_cast<size_t>(BatchRelease::kFull)], 1U);
}

TEST(Executor, BadInstanceFailsAlone) {
  WorkerUnderTest worker;
  AddModelWorker(&worker, {{"fail_if_first_element", "13"}});
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  std::vector<uint64_t> ids;
  for (const float first : {1.0F, 13.0F, 3.0F, 4.0F}) {
    ids.push_back(worker.server.Queue(0, 2, Pair(first)));
  }
  worker.Start();
  for (size_t i = 0; i < ids.size(); ++i) {
    const Answer answer = worker.server.Wait(ids[i])[0];
    if (i == 1) {
      EXPECT_EQ(answer.error, ErrorKind::kStageFailed);
      EXPECT_NE(answer.message.find("Predict Failed: "), std::string::npos) << answer.message;
    } else {
      EXPECT_EQ(answer.error, ErrorKind::kOk) << answer.message;
    }
  }
  worker.Stop();
  EXPECT_EQ(worker.executor.stats().stages[0].model.splits, 1U);
}

TEST(Executor, WrongInputFailsAlone) {
  WorkerUnderTest worker;
  AddModelWorker(&worker);
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  const uint64_t size = worker.server.Queue(0, 2, {Floats({3}, {1, 2, 3}), Row(1, 2)});
  const uint64_t type = worker.server.Queue(0, 2, {Row(1, 2), MakeTensor<int32_t>(DataType::kInt32, {2}, {1, 2})});
  const uint64_t good = worker.server.Queue(0, 2, Pair(1));
  worker.Start();
  Answer answer = worker.server.Wait(size)[0];
  EXPECT_EQ(answer.error, ErrorKind::kInvalidInput);
  EXPECT_EQ(answer.message, "Given model input 0 size 12 not match the size 8 defined in model");
  answer = worker.server.Wait(type)[0];
  EXPECT_EQ(answer.error, ErrorKind::kInvalidInput);
  EXPECT_EQ(answer.message,
            "Given model input 1 data type kMSI_Int32 not match the data type kMSI_Float32 defined in model");
  EXPECT_EQ(worker.server.Wait(good)[0].error, ErrorKind::kOk);
}

// Python stages of these tests: 0 adds 1 to every float and fails rows that start with 99.
void PlusOne(const PythonStageCall& call) {
  for (uint32_t i = 0; i < call.instances; ++i) {
    const TensorView& input = call.input[i * call.inputs];
    float values[2];
    std::memcpy(values, input.data, sizeof(values));
    if (values[0] == 99) {
      call.sink->Fail(i, "ValueError: ninety-nine");
      continue;
    }
    values[0] += 1;
    values[1] += 1;
    TensorView output = input;
    output.data = reinterpret_cast<const uint8_t*>(values);
    call.sink->Put(i, 0, output);
  }
}

MethodGraph MixedGraph() {
  return Method(
      "mixed", {"x1", "x2"}, {"y", "x1"},
      {PythonStage(0, {{0, 0}}, "Preprocess"), ModelStage({{1, 0}, {0, 1}}), PythonStage(0, {{2, 0}}, "Postprocess")},
      {{3, 0}, {0, 0}});
}

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

TEST(Executor, BuiltinArgmaxOfAModelsOutput) {
  WorkerUnderTest worker;
  AddModelWorker(&worker);
  Stage argmax;
  argmax.kind = StageKind::kBuiltin;
  argmax.inputs = {{1, 0}};
  ASSERT_TRUE(worker.executor
                  .AddMethod(Method("classify", {"x1", "x2"}, {"class", "scores"},
                                    {ModelStage({{0, 0}, {0, 1}}), argmax}, {{2, 0}, {1, 0}}))
                  .ok());
  worker.Start();
  const Answer answer = worker.server.Wait(worker.server.Send(0, 2, {Row(1, 5), Row(1, 1)}))[0];
  ASSERT_EQ(answer.error, ErrorKind::kOk) << answer.message;
  EXPECT_EQ(answer.outputs[0].view.dtype, DataType::kInt64);
  EXPECT_EQ(answer.outputs[0].view.rank, 0);
  EXPECT_EQ(answer.outputs[0].As<int64_t>()[0], 1);
  EXPECT_EQ(answer.outputs[1].As<float>(), (std::vector<float>{2, 6}));
}

TEST(Executor, MethodWithoutStagesReturnsItsInputs) {
  WorkerUnderTest worker;
  ASSERT_TRUE(worker.executor.AddMethod(Method("echo", {"a", "b"}, {"b", "a"}, {}, {{0, 1}, {0, 0}})).ok());
  worker.Start();
  const Answer answer = worker.server.Wait(worker.server.Send(0, 2, {Row(1, 2), Row(3, 4)}))[0];
  EXPECT_EQ(answer.outputs[0].As<float>(), (std::vector<float>{3, 4}));
  EXPECT_EQ(answer.outputs[1].As<float>(), (std::vector<float>{1, 2}));
}

TEST(Executor, TwoModelsInARow) {
  WorkerUnderTest worker;
  AddModelWorker(&worker);
  ModelOptions with_batch;
  with_batch.with_batch_dim = true;
  worker.executor.AddModel(MakeModel({{"op", "negate"}, {"inputs", "float32[4,2]"}, {"batch_sizes", "4"}}, with_batch));
  ASSERT_TRUE(worker.executor
                  .AddMethod(Method("f", {"x1", "x2"}, {"sum", "minus"},
                                    {ModelStage({{0, 0}, {0, 1}}), ModelStage({{1, 0}}, 1)}, {{1, 0}, {2, 0}}))
                  .ok());
  worker.Start();
  std::vector<OwnedTensor> tensors;
  for (int i = 0; i < 9; ++i) {
    tensors.push_back(Row(static_cast<float>(i), 0));
    tensors.push_back(Row(1, 0));
  }
  const auto answers = worker.server.Wait(worker.server.Send(0, 2, std::move(tensors)));
  for (size_t i = 0; i < 9; ++i) {
    ASSERT_EQ(answers[i].error, ErrorKind::kOk) << answers[i].message;
    EXPECT_EQ(answers[i].outputs[0].As<float>()[0], static_cast<float>(i) + 1);
    EXPECT_EQ(answers[i].outputs[1].As<float>()[0], -static_cast<float>(i) - 1);
  }
}

TEST(Executor, StopAnswersWhatWasAccepted) {
  WorkerUnderTest worker;
  AddModelWorker(&worker, {{"run_us", "5000"}});
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  std::vector<uint64_t> ids;
  for (int i = 0; i < 20; ++i) {
    ids.push_back(worker.server.Queue(0, 2, Pair(static_cast<float>(i))));
  }
  worker.Start();
  EXPECT_EQ(worker.Stop(), RunEnd::kStopped);
  for (const uint64_t id : ids) {
    EXPECT_EQ(worker.server.Wait(id, 1000)[0].error, ErrorKind::kOk);
  }
}

TEST(Executor, ServerGoneEndsTheRunWhileAStageHangs) {
  UniqueFd ours;
  UniqueFd theirs;
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  theirs = UniqueFd(fds[0]);
  ours = UniqueFd(fds[1]);
  std::mutex hang;
  hang.lock();
  {
    WorkerUnderTest worker;
    std::atomic<bool> started{false};
    worker.OnPython([&](const PythonStageCall&) {
      started = true;
      std::lock_guard<std::mutex> lock(hang);
    });
    ASSERT_TRUE(
        worker.executor.AddMethod(Method("f", {"x"}, {"y"}, {PythonStage(0, {{0, 0}}, "Preprocess")}, {{1, 0}})).ok());
    RunHooks hooks;
    hooks.control_fd = theirs.get();
    hooks.on_control = [] { return ControlEvent::kServerGone; };
    worker.Start(hooks);
    worker.server.Send(0, 1, {Row(1, 2)});
    while (!started) {
      std::this_thread::yield();
    }
    ours.Reset();
    EXPECT_EQ(worker.Join(), RunEnd::kServerGone);
    hang.unlock();
  }
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

TEST(Executor, FullReplyMemoryHoldsResultsBackAndDropsNone) {
  WorkerUnderTest worker({}, 1 << 20);
  SessionOptions options{{"op", "negate"}, {"inputs", "float32[4,10000]"}, {"batch_sizes", "1,2,4"}};
  ModelOptions with_batch;
  with_batch.with_batch_dim = true;
  worker.executor.AddModel(MakeModel(options, with_batch));
  ASSERT_TRUE(worker.executor.AddMethod(Method("f", {"x"}, {"y"}, {ModelStage({{0, 0}})}, {{1, 0}})).ok());
  worker.Start();
  std::vector<uint64_t> ids;
  for (int i = 0; i < 200; ++i) {  // 8 MB of replies
    ids.push_back(worker.server.Send(0, 1, {Floats({10'000}, std::vector<float>(10'000, static_cast<float>(i)))}));
  }
  EXPECT_TRUE(Eventually([&] { return worker.executor.stats().held > 0; }));  // nothing is released
  for (size_t i = 0; i < ids.size(); ++i) {
    const Answer answer = worker.server.Wait(ids[i])[0];
    ASSERT_EQ(answer.error, ErrorKind::kOk) << answer.message;
    ASSERT_EQ(answer.outputs[0].As<float>()[9'999], -static_cast<float>(i));
  }
  EXPECT_EQ(worker.Stop(), RunEnd::kStopped);
}

TEST(Executor, ReplyLargerThanTheReplyMemoryIsAnError) {
  WorkerUnderTest worker({}, 1 << 20);
  ASSERT_TRUE(worker.executor.AddMethod(Method("echo", {"x"}, {"y"}, {}, {{0, 0}})).ok());
  worker.Start();
  const uint64_t id = worker.server.Send(0, 1, {Floats({1'000'000}, std::vector<float>(1'000'000, 1))});
  const Answer answer = worker.server.Wait(id)[0];
  EXPECT_EQ(answer.error, ErrorKind::kInternal);
  EXPECT_NE(answer.message.find("the reply memory has 1048576"), std::string::npos) << answer.message;
}

TEST(Executor, LargeResultsOfPythonArriveWhole) {
  WorkerUnderTest worker;
  worker.OnPython([](const PythonStageCall& call) {
    for (uint32_t i = 0; i < call.instances; ++i) {
      const TensorView& input = call.input[i * call.inputs];
      if (input.bytes == 4) {
        call.sink->Put(i, 0, input);
        call.sink->Fail(i, "changed its mind");
        continue;
      }
      // In turns the large one first, where its place is not known yet, and last, where it is.
      float number = 0;
      std::memcpy(&number, input.data, sizeof(number));
      const uint32_t large = static_cast<uint32_t>(number) % 2;
      TensorView small = input;
      small.dims[0] = 1;
      small.bytes = 4;
      call.sink->Put(i, 0, large == 0 ? input : small);
      call.sink->Put(i, 1, large == 0 ? small : input);
    }
  });
  ASSERT_TRUE(worker.executor
                  .AddMethod(Method("f", {"x"}, {"a", "b", "x"}, {PythonStage(0, {{0, 0}}, "Postprocess", 2)},
                                    {{1, 0}, {1, 1}, {0, 0}}))
                  .ok());
  worker.Start();
  for (int round = 0; round < 30; ++round) {  // more than the reply memory holds at once
    std::vector<OwnedTensor> tensors;
    for (int i = 0; i < 5; ++i) {
      std::vector<float> values(i == 4 ? 1 : 200'000, static_cast<float>(i));
      values.back() = 77;
      tensors.push_back(Floats({static_cast<int64_t>(values.size())}, values));
    }
    const auto answers = worker.server.Wait(worker.server.Send(0, 1, tensors));
    for (size_t i = 0; i < 4; ++i) {
      ASSERT_EQ(answers[i].error, ErrorKind::kOk) << answers[i].message;
      EXPECT_EQ(answers[i].outputs[i % 2].bytes, tensors[i].bytes);
      EXPECT_EQ(answers[i].outputs[1 - i % 2].bytes.size(), 4U);
      EXPECT_EQ(answers[i].outputs[2].bytes, tensors[i].bytes);
    }
    EXPECT_EQ(answers[4].message, "Postprocess Failed: changed its mind");
  }
}

TEST(Executor, LargeResultOfAFailedInstanceLeaksNoReplyMemory) {
  WorkerUnderTest worker({}, 4 << 20);
  worker.OnPython([](const PythonStageCall& call) {
    for (uint32_t i = 0; i < call.instances; ++i) {
      call.sink->Put(i, 0, call.input[i * call.inputs]);
      call.sink->Fail(i, "no");
    }
  });
  ASSERT_TRUE(
      worker.executor.AddMethod(Method("f", {"x"}, {"y"}, {PythonStage(0, {{0, 0}}, "Postprocess")}, {{1, 0}})).ok());
  worker.Start();
  for (int i = 0; i < 20; ++i) {  // 1 MB each
    const auto answers =
        worker.server.Wait(worker.server.Send(0, 1, {Floats({250'000}, std::vector<float>(250'000, 1))}));
    EXPECT_EQ(answers[0].message, "Postprocess Failed: no");
  }
  worker.Stop();
  EXPECT_EQ(worker.executor.stats().held, 0U);
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

TEST(Executor, OneRequestInFlightStaysOnOneThread) {
  WorkerUnderTest worker;
  AddModelWorker(&worker);
  worker.OnPython(PlusOne);
  ASSERT_TRUE(worker.executor.AddMethod(MixedGraph()).ok());
  worker.Start();
  constexpr int kRequests = 300;
  for (int i = 0; i < kRequests; ++i) {
    worker.server.Wait(worker.server.Send(0, 2, Pair(1)));
  }
  worker.Stop();
  // One return from blocking a request, not one a stage; some slack for the start and spurious ones.
  EXPECT_LE(worker.executor.stats().wakeups, kRequests + kRequests / 10U);
}

TEST(Executor, ManyRequestsFromTwoChannelsAllComeBack) {
  ServerSide other;
  WorkerUnderTest worker;
  AddModelWorker(&worker);
  worker.OnPython(PlusOne);
  ASSERT_TRUE(worker.executor.AddMethod(MixedGraph()).ok());
  ASSERT_TRUE(worker.executor.AddMethod(AddMethodGraph()).ok());
  // The second loop rings its own eventfd; a forwarder stands in for the one doorbell that servers share.
  worker.executor.AddChannel(other.MakeWorkerChannel());
  worker.Start();
  for (int round = 0; round < 20; ++round) {
    std::vector<std::pair<ServerSide*, uint64_t>> sent;
    for (int i = 0; i < 60; ++i) {
      ServerSide* side = i % 2 == 0 ? &worker.server : &other;
      sent.emplace_back(side, side->Queue(i % 3 == 0 ? 0U : 1U, 2, Pair(static_cast<float>(i))));
      if (side == &worker.server) {
        side->Ring();
      } else if (side->requests().ConsumerMustWake()) {
        eventfd_write(worker.server.worker_doorbell(), 1);
      }
    }
    for (const auto& [side, id] : sent) {
      EXPECT_EQ(side->Wait(id)[0].error, ErrorKind::kOk);
    }
  }
  EXPECT_EQ(worker.Stop(), RunEnd::kStopped);
}

}  // namespace
}  // namespace msserving
