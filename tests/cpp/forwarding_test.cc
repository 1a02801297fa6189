// An extra worker's executor and device workers' executors, wired together as the server does it: rows go over, share
// batches, come back, and survive the death of either side.
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <thread>

#include "session/remote_session.h"
#include "support/gate.h"
#include "support/worker_under_test.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

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

std::vector<float> FloatsOf(const TensorView& view) {
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

TEST_F(Forwarding, RowsComeBackRightBetweenPythonStages) {
  StartExtra();
  Introduce(StartDevice(), kDevice);
  for (uint32_t count : {1, 3, 40}) {
    ExpectRight(server().Wait(Send(count)));
  }
  EXPECT_EQ(stats().forwarded_rows, 44u);
  EXPECT_EQ(extra_->Stop(), RunEnd::kStopped);
  EXPECT_EQ(stats().rows_with_devices, 0u);
}

TEST_F(Forwarding, AWholeGroupGoesAtOnceAndSharesBatchesWithOthers) {
  StartExtra();
  Gate& gate = NewGate();
  WorkerUnderTest& device = StartDevice(gate.Options());
  Introduce(device, kDevice);
  const uint64_t first = Send(1);
  gate.AwaitRun();
  // While the device is held, rows of the extra worker and of the device worker's own clients queue up there.
  const uint64_t rest = Send(5);
  ASSERT_TRUE(AwaitOut(6));
  const uint64_t own = device.server.Send(0, 2, {Floats({2}, {1, 2}), Floats({2}, {3, 4})});
  ASSERT_TRUE(Eventually([&] { return device.executor.stats().live_instances == 7; }));
  gate.OpenForGood();
  ExpectRight(server().Wait(first));
  ExpectRight(server().Wait(rest));
  EXPECT_EQ(device.server.Wait(own)[0].outputs[0].As<float>(), (std::vector<float>{4, 6}));
  EXPECT_EQ(stats().forwarded_groups, 2u);
  // 1, then the 6 that waited: 4 and 2. A run is counted after its answers have gone.
  EXPECT_TRUE(Eventually([&] { return device.executor.stats().stages[0].model.runs == 3; }));
}

TEST_F(Forwarding, CallsFromInsideAStageAreForwardedToo) {
  StartExtra();
  Introduce(StartDevice(), kDevice);
  ExpectRight(server().Wait(Send(20, kCalls)), 10);
  EXPECT_EQ(stats().calls, 20u);
}

TEST_F(Forwarding, CallsFromAThreadOfTheUsersWhileAllSleep) {
  StartExtra();
  Introduce(StartDevice(), kDevice);
  ExpectRight(server().Wait(Send(1)));
  for (int i = 0; i < 50; ++i) {
    OwnedTensor x1 = Floats({2}, {1, 2});
    OwnedTensor x2 = Floats({2}, {3, 4});
    const std::vector<TensorView> inputs{x1.View(), x2.View()};
    std::vector<float> values;
    Require(executor().Call(kModel, 1, inputs, [&](const CallResults& r) { values = FloatsOf(r.output(0, 0)); }));
    EXPECT_EQ(values, (std::vector<float>{4, 6}));
  }
}

TEST_F(Forwarding, BadRowsFailAloneWithTheStagesOwnWords) {
  StartExtra();
  Introduce(StartDevice({{"fail_if_first_element", "8"}}), kDevice);  // 7 and 1
  std::vector<OwnedTensor> tensors;
  for (const std::vector<float>& row : {std::vector<float>{1, 1}, {7, 7}, {1, 2, 3}, {2, 2}}) {
    tensors.push_back(Floats({static_cast<int64_t>(row.size())}, row));
    tensors.push_back(Floats({2}, {10, 10}));
  }
  const std::vector<Answer> answers = server().Wait(server().Send(kChecked, 2, std::move(tensors)));
  EXPECT_EQ(answers[0].outputs[0].As<float>(), (std::vector<float>{13, 13}));
  EXPECT_EQ(answers[1].error, ErrorKind::kStageFailed);
  EXPECT_EQ(answers[1].message.rfind("Predict Failed: ", 0), 0u) << answers[1].message;
  EXPECT_EQ(answers[1].message.rfind("Predict Failed: "), 0u) << "said twice";
  EXPECT_EQ(answers[2].error, ErrorKind::kInvalidInput);
  EXPECT_NE(answers[2].message.find("Given model input 0 size 12 not match the size 8"), std::string::npos)
      << answers[2].message;
  EXPECT_EQ(answers[3].outputs[0].As<float>(), (std::vector<float>{14, 14}));
}

TEST_F(Forwarding, WithoutADeviceWorkerRowsFailAtOnce) {
  StartExtra();
  for (const uint32_t method : {kChecked, kCalls}) {
    const Answer answer = server().Wait(Send(1, method))[0];
    EXPECT_EQ(answer.error, method == kChecked ? ErrorKind::kServableUnavailable : ErrorKind::kStageFailed);
    EXPECT_NE(answer.message.find("servable is not available"), std::string::npos) << answer.message;
  }
  Introduce(StartDevice(), kDevice);
  ExpectRight(server().Wait(Send(3)));
}

TEST_F(Forwarding, ProbeGoesThroughADeviceWorker_IfThereIsOne) {
  StartExtra();
  EXPECT_EQ(server().Wait(server().Probe())[0].error, ErrorKind::kOk);
  Gate& gate = NewGate();
  WorkerUnderTest& device = StartDevice(gate.Options());
  Introduce(device, kDevice);
  const uint64_t request = Send(1);
  gate.AwaitRun();
  const uint64_t probe = server().Probe();
  ASSERT_TRUE(AwaitOut(2)) << "the row and the probe";
  server().TakeReplies();
  EXPECT_FALSE(server().Done(probe));
  gate.OpenForGood();
  const Answer answer = server().Wait(probe)[0];
  EXPECT_EQ(answer.error, ErrorKind::kOk) << answer.message;
  EXPECT_TRUE(answer.outputs.empty());
  ExpectRight(server().Wait(request));
  EXPECT_EQ(device.executor.stats().requests, 1u);
}

TEST_F(Forwarding, RowsOfADeadDeviceWorkerGoToAnother) {
  StartExtra();
  Gate& held = NewGate();
  WorkerUnderTest& first = StartDevice(held.Options());
  Introduce(first, kDevice);
  const uint64_t request = Send(6);
  const uint64_t call = Send(1, kCalls);
  ASSERT_TRUE(AwaitOut(7));
  Introduce(StartDevice(), kDevice + 1);
  executor().Forget(kDevice);
  ExpectRight(server().Wait(request));
  ExpectRight(server().Wait(call), 10);
  EXPECT_EQ(stats().forwarded_lost, 0u);
  held.OpenForGood();
}

TEST_F(Forwarding, RowsWithoutAnotherDeviceWorkerFailAndTheNextOneServes) {
  StartExtra();
  Gate& held = NewGate();
  Introduce(StartDevice(held.Options()), kDevice);
  const uint64_t request = Send(3);
  const uint64_t call = Send(1, kCalls);
  ASSERT_TRUE(AwaitOut(4));
  executor().Forget(kDevice);
  for (const Answer& answer : server().Wait(request)) {
    EXPECT_EQ(answer.error, ErrorKind::kWorkerUnavailable);
    EXPECT_NE(answer.message.find("the device worker ended"), std::string::npos) << answer.message;
  }
  EXPECT_NE(server().Wait(call)[0].message.find("the device worker ended"), std::string::npos);
  EXPECT_EQ(stats().forwarded_lost, 4u);
  Introduce(StartDevice(), kDevice + 1);
  ExpectRight(server().Wait(Send(5)));
  held.OpenForGood();
}

TEST_F(Forwarding, RowsThatWereRunAreMovedOnce) {
  StartExtra();
  Gate& held = NewGate();
  Introduce(StartDevice(held.Options()), kDevice);
  const uint64_t request = Send(2);
  held.AwaitRun();
  Gate& held_too = NewGate();
  Introduce(StartDevice(held_too.Options()), kDevice + 1);
  executor().Forget(kDevice);
  held_too.AwaitRun();
  Introduce(StartDevice(), kDevice + 2);
  executor().Forget(kDevice + 1);
  EXPECT_EQ(server().Wait(request)[0].error, ErrorKind::kWorkerUnavailable);
  ExpectRight(server().Wait(Send(2)));
  held.OpenForGood();
  held_too.OpenForGood();
}

TEST_F(Forwarding, RowsThatWereRunAsTwoDeviceWorkersDiedAreNamed_OthersMoveOn) {
  StartExtra();
  Gate& held = NewGate();
  Introduce(StartDevice(held.Options()), kDevice);
  const uint64_t deadly = Send(1);
  held.AwaitRun();
  const uint64_t waiting = Send(1);
  ASSERT_TRUE(AwaitOut(2));
  Gate& held_too = NewGate();
  Introduce(StartDevice(held_too.Options()), kDevice + 1);
  executor().Forget(kDevice);
  held_too.AwaitRun();
  held_too.Open();  // what only waited is first
  ExpectRight(server().Wait(waiting));
  held_too.AwaitRun();
  InstanceMark* mark = server().Record(deadly)->mark_of(0);
  EXPECT_FALSE(mark->WasLost()) << "it may still be answered";
  Introduce(StartDevice(), kDevice + 2);
  executor().Forget(kDevice + 1);
  EXPECT_EQ(server().Wait(deadly)[0].error, ErrorKind::kWorkerUnavailable);
  EXPECT_EQ(mark->lost_with[0], InstanceMark::ShortName(kDevice));
  EXPECT_EQ(mark->lost_with[1], InstanceMark::ShortName(kDevice + 1));
  held.OpenForGood();
  held_too.OpenForGood();
}

TEST_F(Forwarding, RowsOverTheirTimeOutFailWithIt_OthersMoveOn) {
  StartExtra();
  Gate& held = NewGate();
  WorkerUnderTest& device = StartDevice(held.Options());
  Introduce(device, kDevice);
  const uint64_t timed = Send(1, kTimed);
  held.AwaitRun();
  const auto* board = reinterpret_cast<const WorkerBoard*>(device.server.control().base() + ChannelLayout::kBoard);
  uint8_t running = 0;
  for (uint32_t slot = 0; slot < kTimedSlots; ++slot) {
    running = board->limit_ns[slot] != 0 ? static_cast<uint8_t>(kFirstTimedMark + slot) : running;
  }
  ASSERT_NE(running, 0) << "the method's time-out holds at the device too";
  const uint64_t waiting = Send(1);
  ASSERT_TRUE(AwaitOut(2));
  Introduce(StartDevice(), kDevice + 1);
  InstanceMark* mark = server().Record(timed)->mark_of(0);
  executor().Forget(kDevice, running);
  const Answer answer = server().Wait(timed)[0];
  EXPECT_EQ(answer.error, ErrorKind::kTimedOut);
  EXPECT_EQ(answer.message, kGivenUpText);
  EXPECT_EQ(mark->lost_with[0], InstanceMark::ShortName(kDevice));
  ExpectRight(server().Wait(waiting));
  held.OpenForGood();
}

TEST_F(Forwarding, ADeadExtraWorkersRowsAreDroppedAndItsMemoryGoes) {
  StartExtra();
  Gate& gate = NewGate();
  WorkerUnderTest& device = StartDevice(gate.Options());
  Introduce(device, kDevice);
  const uint64_t request = Send(1);
  gate.AwaitRun();
  Send(9);
  ASSERT_TRUE(Eventually([&] { return device.executor.stats().live_instances == 10; }));
  device.executor.Forget(kExtra);
  gate.OpenForGood();
  ASSERT_TRUE(Eventually([&] { return device.executor.stats().live_instances == 0; }));
  EXPECT_EQ(device.executor.stats().cancelled, 9u);  // what had not begun was not run
  EXPECT_EQ(device.executor.stats().stages[0].model.rows, 1u);
  EXPECT_FALSE(server().Done(request));
  // It goes on serving its own clients, and stops cleanly.
  const uint64_t own = device.server.Send(0, 2, {Floats({2}, {1, 2}), Floats({2}, {3, 4})});
  EXPECT_EQ(device.server.Wait(own)[0].outputs[0].As<float>(), (std::vector<float>{4, 6}));
  EXPECT_EQ(device.Stop(), RunEnd::kStopped);
  executor().Forget(kDevice);  // so that the extra worker of this test can end
}

TEST_F(Forwarding, StopAnswersRowsThatAreOut) {
  StartExtra();
  Gate& gate = NewGate();
  Introduce(StartDevice(gate.Options()), kDevice);
  const uint64_t request = Send(8);
  ASSERT_TRUE(AwaitOut(8));
  executor().RequestStop();
  gate.OpenForGood();
  ExpectRight(server().Wait(request));
  EXPECT_EQ(extra_->Join(), RunEnd::kStopped);
}

TEST_F(Forwarding, RowsWaitForRoomInSmallMemory) {
  const SessionOptions large{{"op", "add"}, {"inputs", "float32[4,4096];float32[4,4096]"}, {"batch_sizes", "1,2,4"}};
  StartExtra(512 << 10, large);  // room for fifteen rows of 32 KiB
  WorkerUnderTest& device = StartDevice({}, true, large);
  Introduce(device, kDevice, 512 << 10);  // and for 31 results of 16 KiB
  std::vector<OwnedTensor> tensors;
  for (int i = 0; i < 64; ++i) {
    tensors.push_back(Floats({4096}, std::vector<float>(4096, static_cast<float>(i))));
    tensors.push_back(Floats({4096}, std::vector<float>(4096, 10)));
  }
  const std::vector<Answer> answers = server().Wait(server().Send(kChecked, 2, std::move(tensors)));
  for (int i = 0; i < 64; ++i) {
    ASSERT_EQ(answers[i].error, ErrorKind::kOk) << answers[i].message;
    EXPECT_EQ(answers[i].outputs[0].As<float>(), std::vector<float>(4096, static_cast<float>(i) + 12));
  }
  EXPECT_GE(stats().forwarded_groups, 5u);
}

TEST_F(Forwarding, ARowThatNeverFitsSaysSo) {
  const SessionOptions large{{"op", "add"}, {"inputs", "float32[4,65536];float32[4,65536]"}};
  StartExtra(256 << 10, large);
  Introduce(StartDevice({}, true, large), kDevice);
  const std::vector<float> row(65536, 1);
  const uint64_t request = server().Send(kChecked, 2, {Floats({65536}, row), Floats({65536}, row)});
  const Answer answer = server().Wait(request)[0];
  EXPECT_EQ(answer.error, ErrorKind::kInternal);
  EXPECT_NE(answer.message.find("the memory shared with the device workers has 262144"), std::string::npos)
      << answer.message;
}

TEST_F(Forwarding, ADeviceWorkerWithOtherModelsRefuses) {
  StartExtra();
  Introduce(StartDevice({}, false), kDevice);
  const Answer answer = server().Wait(Send(1))[0];
  EXPECT_EQ(answer.error, ErrorKind::kInternal);
  EXPECT_NE(answer.message.find("other models"), std::string::npos) << answer.message;
}

TEST_F(Forwarding, TheDeadlineHoldsAtTheDeviceToo) {
  StartExtra();
  Gate& gate = NewGate();
  Introduce(StartDevice(gate.Options()), kDevice);
  const uint64_t first = Send(1);
  gate.AwaitRun();
  const int64_t deadline_ns = RealClock().NowNs() + 200 * kNanosPerMilli;
  const uint64_t late = Send(1, kChecked, deadline_ns);
  ASSERT_TRUE(Eventually([&] { return RealClock().NowNs() > deadline_ns; }));
  gate.OpenForGood();
  ExpectRight(server().Wait(first));
  EXPECT_EQ(server().Wait(late)[0].error, ErrorKind::kDeadlineExceeded);
}

TEST_F(Forwarding, SeveralDeviceWorkersShareTheRows) {
  StartExtra();
  Gate& first_gate = NewGate();
  Gate& second_gate = NewGate();
  WorkerUnderTest& first = StartDevice(first_gate.Options());
  WorkerUnderTest& second = StartDevice(second_gate.Options());
  Introduce(first, kDevice);
  Introduce(second, kDevice + 1);
  const uint64_t request = Send(16);
  first_gate.AwaitRun();
  second_gate.AwaitRun();
  first_gate.OpenForGood();
  second_gate.OpenForGood();
  ExpectRight(server().Wait(request));
}

// Device workers come and go while requests and calls run: each is answered, rightly or with the reason.
TEST_F(Forwarding, EveryRequestIsAnsweredWhileDeviceWorkersComeAndGo) {
  StartExtra();
  for (int i = 0; i < 3; ++i) {
    StartDevice();
  }
  std::atomic<bool> stop{false};
  std::thread changes([&] {
    uint64_t name = kDevice;
    for (int i = 0; !stop; ++i) {
      WorkerUnderTest& device = *devices_[static_cast<size_t>(i) % devices_.size()];
      device.executor.Forget(kExtra);
      Introduce(device, ++name);
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
      executor().Forget(name - 1);
    }
  });
  size_t right = 0;
  size_t failed = 0;
  for (int round = 0; round < 150; ++round) {
    std::vector<uint64_t> requests;
    for (uint32_t i = 0; i < 4; ++i) {
      requests.push_back(Send(1 + 3 * i, i % 2 == 0 ? kChecked : kCalls));
    }
    for (uint32_t i = 0; i < 4; ++i) {
      const std::vector<Answer> answers = server().Wait(requests[i], 60'000);
      for (size_t k = 0; k < answers.size(); ++k) {
        if (answers[k].error != ErrorKind::kOk) {
          EXPECT_TRUE(answers[k].message.find("ended while") != std::string::npos ||
                      answers[k].message.find("not available") != std::string::npos ||
                      answers[k].message.find("cancelled") != std::string::npos)
              << answers[k].message;
          ++failed;
          continue;
        }
        const float expected = static_cast<float>(k) + (i % 2 == 0 ? 12 : 10);
        EXPECT_EQ(answers[k].outputs[0].As<float>(), (std::vector<float>{expected, expected}));
        ++right;
      }
    }
  }
  stop = true;
  changes.join();
  EXPECT_GT(right, failed);
  EXPECT_EQ(extra_->Stop(), RunEnd::kStopped);
  EXPECT_EQ(stats().rows_with_devices, 0u);
}

}  // namespace
}  // namespace msserving
