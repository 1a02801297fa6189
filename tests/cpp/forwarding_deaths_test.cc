// Rows of an extra worker's model stages survive the death of either side.
#include "forwarding_fixture.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

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
