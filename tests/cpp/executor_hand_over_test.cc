// A model that runs one row at a time: how many rows a thread takes at once, and that nothing else tells the
// difference.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <numeric>
#include <vector>

#include "support/worker_under_test.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

// Moves when a run says so: how long runs take does not depend on the machine.
class StepClock final : public Clock {
 public:
  int64_t NowNs() const override { return now_ns_.load(); }
  void Advance(int64_t ns) { now_ns_.fetch_add(ns); }

 private:
  std::atomic<int64_t> now_ns_{kNanosPerSecond};
};

// Doubles floats in a buffer of its own, which the next run overwrites. 13 fails.
class DoubleSession final : public Session {
 public:
  DoubleSession(StepClock* clock, int64_t width) : clock_(clock) {
    TensorInfo info;
    info.dtype = DataType::kFloat32;
    info.rank = 1;
    info.dims = {width};
    info_.inputs = info_.outputs = {info};
  }
  const SessionInfo& describe() const override { return info_; }
  Status Run(std::span<const MsServingTensor> inputs, std::span<MsServingTensor> outputs) override {
    clock_->Advance(run_ns);
    if (on_run) {
      on_run();
    }
    const auto* values = static_cast<const float*>(inputs[0].data);
    if (values[0] == 13) {
      return Status(ErrorKind::kStageFailed, "thirteen");
    }
    result_.assign(values, values + inputs[0].bytes / sizeof(float));
    for (float& value : result_) {
      value *= 2;
    }
    outputs[0] = inputs[0];
    outputs[0].data = result_.data();
    return Status::Ok();
  }

  int64_t run_ns = kNanosPerMicro;
  std::function<void()> on_run;

 private:
  StepClock* clock_;
  SessionInfo info_;
  std::vector<float> result_;
};

class ExecutorHandOver : public ::testing::Test {
 protected:
  void AddModel(int64_t width = 2) {
    width_ = static_cast<size_t>(width);
    session_ = std::make_shared<DoubleSession>(&clock_, width);
    std::unique_ptr<Model> model;
    Require(Model::Create({session_}, {}, &model));
    worker_.executor.AddModel(std::move(model));
    Require(worker_.executor.AddMethod(Method("double", {"x"}, {"y"}, {ModelStage({{0, 0}})}, {{1, 0}})));
  }
  static std::vector<float> Numbers(size_t count) {
    std::vector<float> firsts(count);
    std::iota(firsts.begin(), firsts.end(), 100.0F);
    return firsts;
  }
  // Before Start(), so that all of it is there when the worker looks.
  uint64_t Queue(const std::vector<float>& firsts, uint32_t method = 0) {
    std::vector<OwnedTensor> rows;
    for (const float first : firsts) {
      rows.push_back(Floats({static_cast<int64_t>(width_)}, std::vector<float>(width_, first)));
    }
    return worker_.server.Queue(method, 1, std::move(rows));
  }
  void Expect(uint64_t id, const std::vector<float>& firsts, float times = 2) {
    const auto answers = worker_.server.Wait(id);
    ASSERT_EQ(answers.size(), firsts.size());
    for (size_t i = 0; i < firsts.size(); ++i) {
      ASSERT_EQ(answers[i].error, ErrorKind::kOk) << answers[i].message;
      EXPECT_EQ(answers[i].outputs[0].As<float>(), std::vector<float>(width_, times * firsts[i])) << i;
    }
  }
  uint64_t Runs() const { return worker_.executor.stats().stages[0].model.runs; }

  StepClock clock_;
  std::shared_ptr<DoubleSession> session_;
  size_t width_ = 0;
  WorkerUnderTest worker_{{}, 64 << 20, clock_};
};

TEST_F(ExecutorHandOver, ShortRunsAreAnsweredTogether) {
  AddModel();
  const auto numbers = Numbers(31);
  const uint64_t id = Queue(numbers);
  worker_.Start();
  Expect(id, numbers);
  worker_.Stop();
  EXPECT_EQ(worker_.server.segments(), 5U);  // 1 + 2 + 4 + 8 + 16
  EXPECT_EQ(Runs(), 31U);
  EXPECT_EQ(worker_.executor.stats().stages[0].instances, 31U);
  EXPECT_EQ(worker_.executor.stats().live_instances, 0U);
}

TEST_F(ExecutorHandOver, LongRunsAreAnsweredOneByOne) {
  AddModel();
  session_->run_ns = 50 * kNanosPerMicro;
  const auto numbers = Numbers(31);
  const uint64_t id = Queue(numbers);
  worker_.Start();
  Expect(id, numbers);
  EXPECT_EQ(worker_.server.segments(), 31U);
}

TEST_F(ExecutorHandOver, WhatIsTakenAtOnceLastsNoLongerThanTheLimit) {
  AddModel();
  session_->run_ns = 20 * kNanosPerMicro;
  const auto numbers = Numbers(31);
  const uint64_t id = Queue(numbers);
  worker_.Start();
  Expect(id, numbers);
  EXPECT_EQ(worker_.server.segments(), 16U);  // 1, then two at a time
}

TEST_F(ExecutorHandOver, OneRowAtATimeIsMarkedAsBeingRun) {
  AddModel();
  const auto numbers = Numbers(31);
  const uint64_t id = Queue(numbers);
  RequestRecord* record = worker_.server.Record(id);
  std::vector<uint32_t> marked;
  session_->on_run = [record, &marked] {
    uint32_t running = 0;
    for (uint32_t i = 0; i < record->instances; ++i) {
      running += record->mark_of(i)->Running() != 0 ? 1 : 0;
    }
    marked.push_back(running);
  };
  worker_.Start();
  Expect(id, numbers);
  worker_.Stop();
  EXPECT_EQ(marked, std::vector<uint32_t>(31, 1));
}

TEST_F(ExecutorHandOver, WhatIsOrderedAloneIsTakenAlone) {
  AddModel();
  const auto numbers = Numbers(30);
  const uint64_t id = Queue(numbers);
  worker_.server.Record(id)->mark_of(10)->order = static_cast<uint8_t>(InstanceOrder::kRunAlone);
  worker_.Start();
  Expect(id, numbers);
  EXPECT_EQ(worker_.server.segments(), 6U);  // 1 + 2 + 4 + the 3 before it, it, and the others
}

TEST_F(ExecutorHandOver, AFailedRowFailsAlone) {
  AddModel();
  auto numbers = Numbers(31);
  numbers[20] = 13;
  const uint64_t id = Queue(numbers);
  worker_.Start();
  const auto answers = worker_.server.Wait(id);
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].error, i == 20 ? ErrorKind::kStageFailed : ErrorKind::kOk) << i;
    if (i != 20) {
      EXPECT_EQ(answers[i].outputs[0].As<float>()[0], 2 * numbers[i]);
    }
  }
}

TEST_F(ExecutorHandOver, CancelledOnesAmongThemAreNotRun) {
  AddModel();
  const auto numbers = Numbers(7);
  const uint64_t first = Queue(numbers);
  const uint64_t cancelled = Queue(numbers);
  const uint64_t last = Queue(numbers);
  worker_.server.Record(cancelled)->cancelled.store(1);
  worker_.Start();
  Expect(first, numbers);
  for (const Answer& answer : worker_.server.Wait(cancelled)) {
    EXPECT_EQ(answer.error, ErrorKind::kCancelled);
  }
  Expect(last, numbers);
  worker_.Stop();
  EXPECT_EQ(Runs(), 14U);
}

TEST_F(ExecutorHandOver, LargeResultsDoNotWait) {
  AddModel(3000);  // one is kept, two are not
  const auto numbers = Numbers(31);
  const uint64_t id = Queue(numbers);
  worker_.Start();
  Expect(id, numbers);
  EXPECT_GT(worker_.server.segments(), 5U);
}

TEST_F(ExecutorHandOver, ResultsGoOnToTheNextStage) {
  AddModel();
  Require(worker_.executor.AddMethod(
      Method("twice", {"x"}, {"y", "z"}, {ModelStage({{0, 0}}), ModelStage({{1, 0}})}, {{2, 0}, {1, 0}})));
  const auto numbers = Numbers(31);
  const uint64_t id = Queue(numbers, 1);
  worker_.Start();
  const auto answers = worker_.server.Wait(id);
  ASSERT_EQ(answers.size(), numbers.size());
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].outputs[0].As<float>()[0], 4 * numbers[i]) << i;
    EXPECT_EQ(answers[i].outputs[1].As<float>()[0], 2 * numbers[i]) << i;
  }
}

}  // namespace
}  // namespace msserving
