// Requests through the worker's executor: batching, stages, channels, its end.
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "executor_fixture.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

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
