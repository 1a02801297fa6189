// An extra worker's executor and device workers' executors, wired together as the server does it.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <thread>

#include "session/remote_session.h"
#include "support/gate.h"
#include "support/worker_under_test.h"

namespace msserving::testing_support {

constexpr uint64_t kExtra = 100;
constexpr uint64_t kDevice = 200;  // and the next for the next device worker
constexpr size_t kReplies = 8 << 20;
// Methods of the extra worker, Python functions of these tests.
constexpr uint32_t kChecked = 0;  // plus one, the model, plus one
constexpr uint32_t kCalls = 1;    // the model is called from inside the stage
constexpr uint32_t kModel = 2;    // internal: the model alone
constexpr uint32_t kTimed = 3;    // the model alone, with a time-out
constexpr uint32_t kPlusOne = 0;
constexpr uint32_t kCallModel = 1;

inline std::vector<float> FloatsOf(const TensorView& view) {
  std::vector<float> values(view.bytes / sizeof(float));
  std::memcpy(values.data(), view.data, view.bytes);
  return values;
}

UniqueFd Copy(int fd) { return UniqueFd(dup(fd)); }

class Forwarding : public ::testing::Test {
 protected:
  // The extra worker. `rows`: its memory for what it sends.
  void StartExtra(size_t rows = 8 << 20, const SessionOptions& model = AddOptions(), size_t reply_bytes = kReplies) {
    Require(SharedMemory::Create("rows", rows, &rows_));
    extra_ = std::make_unique<WorkerUnderTest>(ExecutorOptions(), reply_bytes);
    SharedMemory mine;
    Require(SharedMemory::Map(Copy(rows_.fd()), &mine));
    executor().ForwardModels(std::move(mine));
    ModelOptions batched;
    batched.with_batch_dim = true;
    std::unique_ptr<Model> remote;
    const std::vector<std::shared_ptr<Session>> sessions{
        std::make_shared<RemoteSession>(OpenDouble(model)->describe())};
    Require(Model::Create(sessions, batched, &remote));
    executor().AddModel(std::move(remote));
    Require(executor().AddMethod(Method("checked", {"x1", "x2"}, {"y"},
                                        {PythonStage(kPlusOne, {{0, 0}}, "Preprocess"), ModelStage({{1, 0}, {0, 1}}),
                                         PythonStage(kPlusOne, {{2, 0}}, "Postprocess")},
                                        {{3, 0}})));
    Require(executor().AddMethod(
        Method("calls", {"x1", "x2"}, {"y"}, {PythonStage(kCallModel, {{0, 0}, {0, 1}}, "Stage")}, {{1, 0}})));
    MethodGraph alone = AddMethodGraph();
    alone.signature.name = "@0/0";
    Require(executor().AddMethod(alone, MethodUse::kInternal));
    MethodGraph timed = AddMethodGraph();
    timed.signature.name = "timed";
    timed.timeout_ns = 3600 * kNanosPerSecond;
    Require(executor().AddMethod(timed));
    extra_->OnPython([this](const PythonStageCall& call) { RunPython(call); });
    extra_->Start();
  }

  void RunPython(const PythonStageCall& call) {
    for (uint32_t i = 0; i < call.instances; ++i) {
      const TensorView* inputs = call.input + size_t{i} * call.inputs;
      call.sink->Enter(i, 1);
      if (call.function == kCallModel) {
        const Status status = executor().Call(kModel, 1, {inputs, 2}, [&](const CallResults& results) {
          if (results.error(0) != ErrorKind::kOk) {
            call.sink->Fail(i, results.message(0));
          } else {
            call.sink->Put(i, 0, results.output(0, 0));
          }
        });
        if (!status.ok()) {
          call.sink->Fail(i, status.message());
        }
        continue;
      }
      std::vector<float> values = FloatsOf(inputs[0]);
      for (float& value : values) {
        value += 1;
      }
      TensorView view = inputs[0];
      view.data = reinterpret_cast<const uint8_t*>(values.data());
      call.sink->Put(i, 0, view);
    }
  }

  // One more device worker, running but not yet known to the extra one.
  WorkerUnderTest& StartDevice(const SessionOptions& more = {}, bool with_model = true,
                               const SessionOptions& model = AddOptions()) {
    devices_.push_back(std::make_unique<WorkerUnderTest>());
    WorkerUnderTest& device = *devices_.back();
    SessionOptions options = model;
    options.insert(options.end(), more.begin(), more.end());
    ModelOptions batched;
    batched.with_batch_dim = true;
    if (with_model) {
      device.executor.AddModel(MakeModel(options, batched));
      Require(device.executor.AddMethod(AddMethodGraph()));
      // As in life, some method has a Python stage, so that one thread takes what arrives while the model runs.
      Require(device.executor.AddMethod(Method("python", {"x"}, {"y"}, {PythonStage(0, {{0, 0}}, "Stage")}, {{1, 0}})));
      device.OnPython([](const PythonStageCall&) {});
    }
    Require(device.executor.ServeExtraWorkers());
    device.Start();
    return device;
  }

  // What the server does when both are there.
  void Introduce(WorkerUnderTest& device, uint64_t name, size_t reply_bytes = kReplies) {
    SharedMemory control;
    SharedMemory replies;
    Require(SharedMemory::Create("control", ChannelLayout::kBytes, &control));
    Require(SharedMemory::Create("replies", reply_bytes, &replies));
    std::unique_ptr<Channel> channel;
    Require(Channel::Open({Copy(control.fd()), Copy(replies.fd()), Copy(rows_.fd()), extra_->server.WorkerDoorbell()},
                          &channel));
    device.executor.AddExtra(kExtra, std::move(channel));
    std::shared_ptr<DeviceLink> link;
    Require(DeviceLink::Open(name, {Copy(control.fd()), Copy(replies.fd()), device.server.WorkerDoorbell()}, &link));
    executor().AddDevice(std::move(link));
  }

  // `count` instances of {i, i} + {10, 10}.
  uint64_t Send(uint32_t count, uint32_t method = kChecked, int64_t deadline_ns = kNoDeadline) {
    std::vector<OwnedTensor> tensors;
    for (uint32_t i = 0; i < count; ++i) {
      tensors.push_back(Floats({2}, {static_cast<float>(i), static_cast<float>(i)}));
      tensors.push_back(Floats({2}, {10, 10}));
    }
    return server().Send(method, 2, std::move(tensors), deadline_ns);
  }

  void ExpectRight(const std::vector<Answer>& answers, float added = 12) {
    for (size_t i = 0; i < answers.size(); ++i) {
      ASSERT_EQ(answers[i].error, ErrorKind::kOk) << answers[i].message;
      const float expected = static_cast<float>(i) + added;
      EXPECT_EQ(answers[i].outputs[0].As<float>(), (std::vector<float>{expected, expected}));
    }
  }

  Executor& executor() { return extra_->executor; }
  ServerSide& server() { return extra_->server; }
  ExecutorStats stats() { return executor().stats(); }
  bool AwaitOut(uint64_t rows) {
    return Eventually([&] { return stats().rows_with_devices == rows; });
  }

  Gate& NewGate() { return gates_.emplace_back(); }

  std::deque<Gate> gates_;  // outlive the workers
  SharedMemory rows_;
  std::unique_ptr<WorkerUnderTest> extra_;
  std::deque<std::unique_ptr<WorkerUnderTest>> devices_;
};

}  // namespace msserving::testing_support
