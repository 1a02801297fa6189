// Rows of an extra worker's model stages: they go over to device workers, share batches, and come back.
#include "forwarding_fixture.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

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

}  // namespace
}  // namespace msserving
