// Results in the executor's reply memory.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "executor_fixture.h"
#include "support/gate.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

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

}  // namespace
}  // namespace msserving
