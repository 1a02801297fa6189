// A model that takes several runs at a time: its batches are out together, each in a line of its own.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "support/gate.h"
#include "support/worker_under_test.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

// What all lines of a graph have in common: runs, by the first value of their first row, held until they may end.
struct Shared {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<float> began;
  bool holds = false;
  uint32_t out = 0;
  uint32_t most_out = 0;

  void Release() {
    {
      std::lock_guard lock(mutex);
      holds = false;
    }
    changed.notify_all();
  }
  std::vector<float> Began() {
    std::lock_guard lock(mutex);
    return began;
  }
};

// Doubles rows of two floats; each line writes into memory of its own, as ranks do.
class LineSession final : public Session {
 public:
  LineSession(std::shared_ptr<Shared> shared, uint32_t lines) : shared_(std::move(shared)), lines_(lines) {
    TensorInfo info;
    info.dtype = DataType::kFloat32;
    info.rank = 2;
    info.dims = {2, 2};
    info_.inputs = info_.outputs = {info};
    info_.batch_sizes = {1, 2};
  }
  const SessionInfo& describe() const override { return info_; }
  Status Run(std::span<const MsServingTensor> inputs, std::span<MsServingTensor> outputs) override {
    const auto* values = static_cast<const float*>(inputs[0].data);
    const size_t count = inputs[0].bytes / sizeof(float);
    {
      std::unique_lock lock(shared_->mutex);
      shared_->began.push_back(values[0]);
      shared_->most_out = std::max(shared_->most_out, ++shared_->out);
      shared_->changed.wait(lock, [this] { return !shared_->holds; });
      --shared_->out;
    }
    if (values[0] == 13) {
      return Status(ErrorKind::kStageFailed, "thirteen");
    }
    result_.assign(values, values + count);
    for (float& value : result_) {
      value *= 2;
    }
    outputs[0] = inputs[0];
    outputs[0].data = result_.data();
    return Status::Ok();
  }
  uint32_t runs_at_once() const override { return lines_; }
  std::shared_ptr<Session> Sibling(uint32_t) const override { return std::make_shared<LineSession>(shared_, lines_); }

 private:
  const std::shared_ptr<Shared> shared_;
  const uint32_t lines_;
  SessionInfo info_;
  std::vector<float> result_;
};

class ExecutorLines : public ::testing::Test {
 protected:
  void AddModel(uint32_t lines) {
    std::unique_ptr<Model> model;
    ModelOptions options;
    options.with_batch_dim = true;
    Require(Model::Create({std::make_shared<LineSession>(shared_, lines)}, options, &model));
    EXPECT_EQ(model->lines(), lines);
    worker_.executor.AddModel(std::move(model));
  }
  void AddMethod() {
    Require(worker_.executor.AddMethod(Method("double", {"x"}, {"y"}, {ModelStage({{0, 0}})}, {{1, 0}})));
  }
  uint64_t Send(std::vector<float> firsts) {
    std::vector<OwnedTensor> rows;
    for (const float first : firsts) {
      rows.push_back(Floats({2}, {first, 1}));
    }
    return worker_.server.Send(0, 1, std::move(rows));
  }
  void Expect(uint64_t id, std::vector<float> firsts) {
    const auto answers = worker_.server.Wait(id);
    ASSERT_EQ(answers.size(), firsts.size());
    for (size_t i = 0; i < firsts.size(); ++i) {
      ASSERT_EQ(answers[i].error, ErrorKind::kOk) << answers[i].message;
      EXPECT_EQ(answers[i].outputs[0].As<float>(), (std::vector<float>{2 * firsts[i], 2}));
    }
  }

  const std::shared_ptr<Shared> shared_ = std::make_shared<Shared>();
  WorkerUnderTest worker_;
};

TEST_F(ExecutorLines, BatchesAreOutTogether_AndNoMoreThanThereAreLines) {
  AddModel(2);
  AddMethod();
  shared_->holds = true;
  worker_.Start();
  const uint64_t first = Send({1, 2});
  ASSERT_TRUE(Eventually([this] { return shared_->Began().size() == 1; }));
  const uint64_t second = Send({3, 4});
  ASSERT_TRUE(Eventually([this] { return shared_->Began().size() == 2; }));
  const uint64_t third = Send({5});
  const uint64_t fourth = Send({6});
  shared_->Release();
  Expect(first, {1, 2});
  Expect(second, {3, 4});
  Expect(third, {5});
  Expect(fourth, {6});
  worker_.Stop();
  EXPECT_EQ(shared_->most_out, 2U);
  const ExecutorStats stats = worker_.executor.stats();
  EXPECT_EQ(stats.stages[0].model.rows, 6U);
  EXPECT_EQ(stats.stages[0].model.runs, shared_->began.size());
  EXPECT_EQ(stats.stages[0].instances, 6U);
  EXPECT_EQ(stats.live_instances, 0U);
}

TEST_F(ExecutorLines, AnswersAreTheirOwnUnderLoad) {
  AddModel(3);
  AddMethod();
  worker_.Start();
  std::vector<std::pair<uint64_t, float>> sent;
  for (int i = 0; i < 3000; ++i) {
    const auto first = static_cast<float>(100 + i);
    sent.emplace_back(Send({first}), first);
    if (sent.size() == 50) {
      for (const auto& [id, value] : sent) {
        Expect(id, {value});
      }
      sent.clear();
    }
  }
  worker_.Stop();
  EXPECT_LE(shared_->most_out, 3U);
}

TEST_F(ExecutorLines, AFailedRowFailsAloneInItsLine) {
  AddModel(2);
  AddMethod();
  worker_.Start();
  const auto answers = worker_.server.Wait(Send({13, 1}));
  EXPECT_NE(answers[0].message.find("thirteen"), std::string::npos);
  EXPECT_EQ(answers[1].error, ErrorKind::kOk);
  Expect(Send({4}), {4});
}

TEST_F(ExecutorLines, AModelOfOneLineBesideItKeepsTheDeviceForOne) {
  AddModel(2);
  worker_.executor.AddModel(MakeModel({{"op", "negate"}, {"inputs", "float32[2,2]"}}, {true, {}, 0}));
  AddMethod();
  worker_.Start();
  std::vector<uint64_t> ids;
  for (int i = 0; i < 40; ++i) {
    ids.push_back(Send({static_cast<float>(20 + i)}));
  }
  for (int i = 0; i < 40; ++i) {
    Expect(ids[static_cast<size_t>(i)], {static_cast<float>(20 + i)});
  }
  worker_.Stop();
  EXPECT_EQ(shared_->most_out, 1U);
}

TEST_F(ExecutorLines, ProbesAndStopComeThroughWhileOneLineIsHeld) {
  AddModel(2);
  AddMethod();
  shared_->holds = true;
  worker_.Start();
  const uint64_t held = Send({1});
  ASSERT_TRUE(Eventually([this] { return shared_->Began().size() == 1; }));
  EXPECT_EQ(worker_.server.Wait(worker_.server.Probe())[0].error, ErrorKind::kOk);
  worker_.executor.RequestStop();
  shared_->Release();
  Expect(held, {1});
  EXPECT_EQ(worker_.Join(), RunEnd::kStopped);
}

// Calls from threads of the user's take the device themselves, each with a line of its own.
TEST_F(ExecutorLines, CallsFromSeveralThreadsAreOutTogether) {
  AddModel(2);
  AddMethod();
  shared_->holds = true;
  worker_.Start();
  ASSERT_TRUE(worker_.server.Wait(worker_.server.Probe())[0].error == ErrorKind::kOk);  // it runs
  std::atomic<int> right{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&, i] {
      OwnedTensor row = Floats({2}, {static_cast<float>(i + 1), 1});
      const TensorView view = row.View();
      const Status status = worker_.executor.Call(0, 1, {&view, 1}, [&](const CallResults& results) {
        const TensorView& output = results.output(0, 0);
        right += *reinterpret_cast<const float*>(output.data) == static_cast<float>(2 * (i + 1)) ? 1 : 0;
      });
      EXPECT_TRUE(status.ok()) << status.message();
    });
  }
  EXPECT_TRUE(Eventually([this] { return shared_->Began().size() == 2; }));
  shared_->Release();
  for (std::thread& caller : callers) {
    caller.join();
  }
  worker_.Stop();
  EXPECT_EQ(right, 4);
  EXPECT_EQ(shared_->most_out, 2U);
}

}  // namespace
}  // namespace msserving
