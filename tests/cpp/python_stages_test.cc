// Python stages in a row, stacked arrays, and what failures of them are.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>

#include "support/worker_under_test.h"
#include "worker/stacked_rows.h"

namespace msserving {
namespace {

using namespace testing_support;

constexpr uint32_t kLargeRow = 20'000;  // floats: more bytes than are copied for a function

OwnedTensor Row(float a, float b) { return Floats({2}, {a, b}); }

OwnedTensor Large(float value) { return Floats({kLargeRow}, std::vector<float>(kLargeRow, value)); }

float FirstOf(const TensorView& view) {
  float value = 0;
  std::memcpy(&value, view.data, sizeof(value));
  return value;
}

// Adds 1 to the first float of each row and fails rows that start with 99.
void AddOne(const PythonStageCall& call) {
  for (uint32_t i = 0; i < call.instances; ++i) {
    const TensorView& input = call.input[i * call.inputs];
    std::vector<uint8_t> bytes(input.data, input.data + input.bytes);
    if (FirstOf(input) == 99) {
      call.sink->Fail(i, "ValueError: ninety-nine");
      continue;
    }
    const float value = FirstOf(input) + 1;
    std::memcpy(bytes.data(), &value, sizeof(value));
    TensorView output = input;
    output.data = bytes.data();
    call.sink->Put(i, 0, output);
  }
}

Stage Added(uint32_t function, std::vector<ValueRef> inputs, const std::string& failure) {
  Stage stage = PythonStage(function, std::move(inputs), "");
  stage.failure = failure;
  return stage;
}

Stage Stacked(std::vector<ValueRef> inputs, uint32_t batch_size = 8) {
  Stage stage = PythonStage(0, std::move(inputs), "Stage");
  stage.stacked = true;
  stage.batch_size = batch_size;
  return stage;
}

MethodGraph ChainGraph(int stages) {
  std::vector<Stage> chain;
  for (int i = 0; i < stages; ++i) {
    const auto before = static_cast<uint16_t>(i);
    chain.push_back(Added(0, {{before, 0}}, "Call f" + std::to_string(i + 1) + " Failed"));
  }
  return Method("chain", {"x"}, {"y"}, std::move(chain), {{static_cast<uint16_t>(stages), 0}});
}

void AddDouble(WorkerUnderTest* worker, const SessionOptions& more = {}) {
  SessionOptions options = AddOptions();
  options.insert(options.end(), more.begin(), more.end());
  worker->executor.AddModel(MakeModel(options, {.with_batch_dim = true}));
}

class ThreeInARow : public ::testing::TestWithParam<bool> {};

TEST_P(ThreeInARow, AreOneCallForARunnerThatAsksForMore) {
  const bool asks = GetParam();
  WorkerUnderTest worker;
  std::atomic<int> entries{0};
  worker.OnPython([&](const PythonStageCall& first) {
    ++entries;
    for (const PythonStageCall* call = &first; call != nullptr; call = asks ? call->sink->Next() : nullptr) {
      AddOne(*call);
    }
  });
  ASSERT_TRUE(worker.executor.AddMethod(ChainGraph(3)).ok());
  std::vector<uint64_t> ids;
  for (int i = 0; i < 40; ++i) {
    ids.push_back(worker.server.Queue(0, 1, {Row(static_cast<float>(i), 2)}));
  }
  worker.Start();
  for (size_t i = 0; i < ids.size(); ++i) {
    EXPECT_EQ(worker.server.Wait(ids[i])[0].outputs[0].As<float>(), (std::vector<float>{static_cast<float>(i) + 3, 2}));
  }
  worker.Stop();
  EXPECT_EQ(entries, asks ? 1 : 3);
  const ExecutorStats stats = worker.executor.stats();
  EXPECT_EQ(stats.python_calls, asks ? 1U : 3U);
  for (const StageStats& stage : stats.stages) {
    EXPECT_EQ(stage.instances, 40U) << stage.name;
  }
}

INSTANTIATE_TEST_SUITE_P(PythonStages, ThreeInARow, ::testing::Bool());

TEST(PythonStages, FailedInstanceLeavesTheRowAndTheOthersGoOn) {
  WorkerUnderTest worker;
  worker.OnPython([](const PythonStageCall& first) {
    for (const PythonStageCall* call = &first; call != nullptr; call = call->sink->Next()) {
      AddOne(*call);
    }
  });
  ASSERT_TRUE(worker.executor.AddMethod(ChainGraph(3)).ok());
  worker.Start();
  const auto answers = worker.server.Wait(worker.server.Send(0, 1, {Row(99, 0), Row(1, 0), Row(98, 0), Row(97, 0)}));
  EXPECT_EQ(answers[1].outputs[0].As<float>()[0], 4);
  for (const int bad : {0, 2, 3}) {
    const Answer& answer = answers[static_cast<size_t>(bad)];
    EXPECT_EQ(answer.error, ErrorKind::kCallFailed);
    EXPECT_EQ(answer.message, "Call f" + std::to_string(bad == 0 ? 1 : bad) + " Failed: ValueError: ninety-nine");
  }
  EXPECT_EQ(TraitsOf(ErrorKind::kCallFailed).wire_code, 3);
}

TEST(PythonStages, CancelledBetweenStagesInARow_IsNotRunFurther) {
  WorkerUnderTest worker;
  RequestRecord* record = nullptr;
  std::atomic<uint32_t> ran{0};
  worker.OnPython([&](const PythonStageCall& first) {
    for (const PythonStageCall* call = &first; call != nullptr; call = call->sink->Next()) {
      AddOne(*call);
      ran += call->instances;
      record->cancelled.store(1);
    }
  });
  ASSERT_TRUE(worker.executor.AddMethod(ChainGraph(3)).ok());
  const uint64_t id = worker.server.Queue(0, 1, {Row(1, 2)});
  record = worker.server.Record(id);
  worker.Start();
  EXPECT_EQ(worker.server.Wait(id)[0].error, ErrorKind::kCancelled);
  worker.Stop();
  EXPECT_EQ(ran, 1U);
  EXPECT_EQ(worker.executor.stats().cancelled, 1U);
}

TEST(PythonStages, DeadlineBetweenStagesInARow_IsKept) {
  WorkerUnderTest worker;
  std::atomic<uint32_t> ran{0};
  worker.OnPython([&](const PythonStageCall& first) {
    for (const PythonStageCall* call = &first; call != nullptr; call = call->sink->Next()) {
      AddOne(*call);
      ran += call->instances;
      std::this_thread::sleep_for(std::chrono::milliseconds(1100));
    }
  });
  ASSERT_TRUE(worker.executor.AddMethod(ChainGraph(3)).ok());
  worker.Start();
  const int64_t deadline_ns = RealClock().NowNs() + kNanosPerSecond;
  const uint64_t id = worker.server.Queue(0, 1, {Row(1, 2)}, deadline_ns);
  worker.server.Ring();
  EXPECT_EQ(worker.server.Wait(id)[0].error, ErrorKind::kDeadlineExceeded);
  EXPECT_LE(ran, 1U);
}

// ---- stacked arrays

TEST(StackedArrays, LargeRowsOfARequestAreSeenInItsBlock) {
  WorkerUnderTest worker;
  std::vector<const uint8_t*> data;
  uint64_t distance = 0;
  std::atomic<uint32_t> touched{0};
  RequestRecord* record = nullptr;
  worker.OnPython([&](const PythonStageCall& call) {
    ASSERT_TRUE(call.stacked);
    EXPECT_EQ(StackEnd(call, 0), 3U);
    EXPECT_FALSE(StackIsCopied(call, 0, 3, 0));
    distance = RowDistance(call, 0, 3, 0);
    EXPECT_EQ(RowDistance(call, 0, 3, 1), distance);
    touched = record->touched.load();
    for (uint32_t i = 0; i < 3; ++i) {
      data.push_back(call.input[i * 2].data);
    }
    AddOne(call);
  });
  ASSERT_TRUE(worker.executor.AddMethod(Method("f", {"x1", "x2"}, {"y"}, {Stacked({{0, 0}, {0, 1}})}, {{1, 0}})).ok());
  std::vector<OwnedTensor> tensors;
  for (int i = 0; i < 6; ++i) {
    tensors.push_back(Large(static_cast<float>(i)));
  }
  const uint64_t id = worker.server.Queue(0, 2, std::move(tensors));
  record = worker.server.Record(id);
  worker.Start();
  const auto answers = worker.server.Wait(id);
  EXPECT_EQ(answers[2].outputs[0].As<float>()[0], 5);
  worker.Stop();  // what its thread has written is read from here on
  EXPECT_EQ(touched, 1U);
  EXPECT_EQ(distance, 2 * 80'000U);
  ASSERT_EQ(data.size(), 3U);
  EXPECT_EQ(data[2] - data[0], 4 * 80'000);
}

TEST(StackedArrays, SmallRowsLeaveTheRequestsBlockAlone) {
  WorkerUnderTest worker;
  std::atomic<uint32_t> touched{7};
  RequestRecord* record = nullptr;
  worker.OnPython([&](const PythonStageCall& call) {
    EXPECT_TRUE(StackIsCopied(call, 0, call.instances, 0));
    touched = record->touched.load();
    AddOne(call);
  });
  ASSERT_TRUE(worker.executor.AddMethod(Method("f", {"x"}, {"y"}, {Stacked({{0, 0}})}, {{1, 0}})).ok());
  const uint64_t id = worker.server.Queue(0, 1, {Row(1, 0), Row(2, 0)});
  record = worker.server.Record(id);
  worker.Start();
  EXPECT_EQ(worker.server.Wait(id)[1].outputs[0].As<float>()[0], 3);
  EXPECT_EQ(touched, 0U);
}

TEST(StackedArrays, SharedShapesMakeACall) {
  std::vector<OwnedTensor> tensors;
  for (const int64_t size : {2, 2, 3, 3, 3}) {
    tensors.push_back(Floats({size}, std::vector<float>(static_cast<size_t>(size))));
  }
  tensors.push_back(MakeTensor<int32_t>(DataType::kInt32, {3}, {1, 2, 3}));
  std::vector<TensorView> views;
  for (OwnedTensor& tensor : tensors) {
    views.push_back(tensor.View());
  }
  const PythonStageCall call{0, 6, 1, 1, 2, true, views.data(), nullptr, nullptr};
  EXPECT_EQ(StackEnd(call, 0), 2U);
  EXPECT_EQ(StackEnd(call, 2), 4U);  // no more than batch_size
  EXPECT_EQ(StackEnd(call, 4), 5U);
  EXPECT_EQ(StackEnd(call, 5), 6U);
}

TEST(StackedArrays, ModelsOutputsLieSideBySide) {
  WorkerUnderTest worker;
  AddDouble(&worker);
  std::atomic<uint64_t> distance{0};
  worker.OnPython([&](const PythonStageCall& call) {
    distance = RowDistance(call, 0, call.instances, 0);
    AddOne(call);
  });
  MethodGraph graph =
      Method("f", {"x1", "x2"}, {"y", "sum"}, {ModelStage({{0, 0}, {0, 1}}), Stacked({{1, 0}})}, {{2, 0}, {1, 0}});
  ASSERT_TRUE(worker.executor.AddMethod(graph).ok());
  std::vector<OwnedTensor> tensors;
  for (int i = 0; i < 4; ++i) {
    tensors.push_back(Row(static_cast<float>(i), 1));
    tensors.push_back(Row(10, 1));
  }
  worker.Start();
  const auto answers = worker.server.Wait(worker.server.Send(0, 2, std::move(tensors)));
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(answers[i].outputs[0].As<float>()[0], 11 + static_cast<float>(i));
    EXPECT_EQ(answers[i].outputs[1].As<float>()[0], 10 + static_cast<float>(i));
  }
  EXPECT_EQ(distance, 8U);
}

// Rows that a function returns as one array go into the next stage, and into a model, as they are.
TEST(StackedArrays, ReturnedRowsStayTogether) {
  WorkerUnderTest worker;
  worker.executor.AddModel(MakeModel({{"op", "add"}, {"inputs", "float32[4,2];float32[4,2]"}, {"batch_sizes", "1,2,4"}},
                                     {.with_batch_dim = true}));
  std::atomic<uint64_t> distance{0};
  worker.OnPython([&](const PythonStageCall& first) {
    for (const PythonStageCall* call = &first; call != nullptr; call = call->sink->Next()) {
      distance = RowDistance(*call, 0, call->instances, 0);
      std::vector<float> rows;
      for (uint32_t i = 0; i < call->instances; ++i) {
        rows.push_back(FirstOf(call->input[i * call->inputs]) * 2);
        rows.push_back(1);
      }
      OwnedTensor tensor = Floats({call->instances, 2}, rows);
      EXPECT_TRUE(call->sink->PutRows(0, call->instances, 0, tensor.View()));
    }
  });
  ASSERT_TRUE(worker.executor
                  .AddMethod(Method("f", {"x"}, {"y"},
                                    {Stacked({{0, 0}}), Stacked({{1, 0}}), ModelStage({{2, 0}, {2, 0}})}, {{3, 0}}))
                  .ok());
  worker.Start();
  const auto answers = worker.server.Wait(worker.server.Send(0, 1, {Row(1, 0), Row(2, 0), Row(3, 0), Row(4, 0)}));
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(answers[i].outputs[0].As<float>()[0], 8 * static_cast<float>(i + 1)) << answers[i].message;
  }
  worker.Stop();
  EXPECT_EQ(distance, 8U);
  const ExecutorStats stats = worker.executor.stats();
  EXPECT_EQ(stats.python_calls, 1U);
  EXPECT_EQ(stats.stages.back().model.in_place, stats.stages.back().model.runs);
}

TEST(StackedArrays, RowsOfFailedInstancesAreGivenBack) {
  MemoryPool pool(1 << 20);
  SharedRows* rows = SharedRows::Create(pool, 100, 2);
  InstanceMemory one;
  one.Share(rows);
  EXPECT_TRUE(one.Owns(rows->data() + 99));
  EXPECT_GT(one.bytes(), 0U);
  uint8_t* const data = rows->data();
  rows->Drop(pool);
  one.Clear(pool);
  EXPECT_EQ(one.bytes(), 0U);
  SharedRows* again = SharedRows::Create(pool, 100, 1);
  EXPECT_EQ(again->data(), data);  // the same block, from the pool
  again->Drop(pool);
}

}  // namespace
}  // namespace msserving
