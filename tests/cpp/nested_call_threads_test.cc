// Calls from users' own threads and from stages side by side: they end with the run, and nothing locks up.
#include "nested_call_fixture.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

TEST_F(CallFromStage, EndOfTheRunReleasesWhoWaits) {
  std::atomic<bool> interrupt{false};
  std::atomic<bool> returned{false};
  std::vector<Outcome> outcomes;
  outer_ = [&](const PythonStageCall& call) {
    // Five rows: four run, one waits in the queue until it is abandoned.
    EXPECT_TRUE(Call(kModel, std::vector<std::vector<float>>(10, {1, 0}), &outcomes).ok());
    returned = true;
    call.sink->Put(0, 0, call.input[0]);
  };
  Gate gate;
  gate.OpenForGood();  // only to see runs begin
  SessionOptions slow = gate.Options();
  slow.push_back({"run_us", "300000"});
  model_use_ = MethodUse::kPublic;
  SetUpWorker(slow);
  RunHooks hooks;
  hooks.interrupted = [&] { return interrupt.load(); };
  worker_->Start(hooks);
  server().Send(kModel, 2, {Floats({2}, {1, 1}), Floats({2}, {1, 1})});
  gate.AwaitRun();
  Send(1);
  EXPECT_TRUE(Eventually([&] { return executor().stats().calls == 1; }));
  interrupt = true;
  EXPECT_EQ(worker_->Join(), RunEnd::kInterrupted);
  worker_.reset();  // waits for the stage
  EXPECT_TRUE(returned);
  ASSERT_EQ(outcomes.size(), 5U);
  EXPECT_EQ(outcomes[4].error, ErrorKind::kCancelled);
  EXPECT_EQ(outcomes[4].message, "the worker is ending");
}

TEST_F(CallFromStage, StopWaitsForCallsOfUsersThreads) {
  Gate gate;
  Start(PassOn(kModel), gate.Options());
  gate.Open();
  server().Wait(Send(1));  // it runs now
  std::vector<Outcome> outcomes;
  std::thread user([&] { EXPECT_TRUE(Call(kAddOne, {{1, 0}, {1, 0}}, &outcomes).ok()); });
  while (executor().stats().calls == 1) {
    std::this_thread::yield();
  }
  executor().RequestStop();
  gate.OpenForGood();
  EXPECT_EQ(worker_->Join(), RunEnd::kStopped);
  user.join();
  ASSERT_EQ(outcomes.size(), 1U);
  EXPECT_EQ(outcomes[0].values[0], 4);
}

TEST_F(CallFromStage, AStageMayWaitForThreadsThatCall) {
  Start([&](const PythonStageCall& call) {
    std::vector<std::thread> pool;
    std::atomic<int> good{0};
    for (int i = 0; i < 4; ++i) {
      pool.emplace_back([&, i] {
        std::vector<Outcome> outcomes;
        const Status status = Call(kAddOne, {{static_cast<float>(i), 0}, {1, 0}}, &outcomes);
        good += status.ok() && outcomes.at(0).values.at(0) == static_cast<float>(i) + 3 ? 1 : 0;
      });
    }
    for (std::thread& thread : pool) {
      thread.join();
    }
    const std::vector<float> answer{static_cast<float>(good), 0};
    call.sink->Put(0, 0, ViewOfFloats(answer));
  });
  for (int i = 0; i < 50; ++i) {
    ASSERT_EQ(server().Wait(Send(1))[0].outputs.at(0).As<float>()[0], 4);
  }
}

TEST_F(CallFromStage, ManyRequestsAndUsersThreadsAtOnceAreAllAnswered) {
  model_use_ = MethodUse::kPublic;
  Start(PassOn(kAddOne), {{"run_us", "100"}});
  server().Wait(Send(1));  // it runs now
  std::atomic<int> wrong{0};
  std::vector<std::thread> users;
  for (int thread = 0; thread < 3; ++thread) {
    users.emplace_back([&, thread] {
      for (int i = 0; i < 100; ++i) {
        const auto first = static_cast<float>(thread * 1000 + i + 200);
        std::vector<Outcome> outcomes;
        const Status status = Call(i % 2 == 0 ? kModel : kAddOne, {{first, 0}, {1, 0}, {first, 5}, {2, 0}}, &outcomes);
        const float more = i % 2 == 0 ? 0 : 2;
        if (!status.ok() || outcomes.size() != 2 || outcomes[0].values.at(0) != first + 1 + more ||
            outcomes[1].values.at(0) != first + 2 + more) {
          ++wrong;
        }
      }
    });
  }
  for (int round = 0; round < 20; ++round) {
    std::vector<uint64_t> nested;
    std::vector<uint64_t> plain;
    for (int i = 0; i < 10; ++i) {
      nested.push_back(Send(static_cast<float>(i)));
      plain.push_back(server().Send(kModel, 2, {Floats({2}, {static_cast<float>(i), 0}), Floats({2}, {1, 1})}));
    }
    for (size_t i = 0; i < 10; ++i) {
      ASSERT_EQ(server().Wait(nested[i])[0].outputs.at(0).As<float>()[0], static_cast<float>(i) + 12);
      ASSERT_EQ(server().Wait(plain[i])[0].outputs.at(0).As<float>()[0], static_cast<float>(i) + 1);
    }
  }
  for (std::thread& user : users) {
    user.join();
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(worker_->Stop(), RunEnd::kStopped);
  EXPECT_EQ(executor().stats().live_instances, 0U);
  EXPECT_EQ(executor().stats().calls, 501U);
}

// Each holds its call until all are in theirs.
TEST_F(CallFromStage, AsManyAsTheStageSaysRunSideBySideAndShareABatch) {
  concurrency_ = 4;
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  Outer pass_on = PassOn(kModel);
  Start(
      [&](const PythonStageCall& call) {
        const int now = ++inside;
        for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
        }
        pass_on(call);
        --inside;
      },
      {{"run_us", "50000"}});
  std::vector<uint64_t> ids;
  for (int i = 0; i < 12; ++i) {
    ids.push_back(Send(static_cast<float>(i)));
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    ASSERT_EQ(server().Wait(ids[i])[0].outputs.at(0).As<float>()[0], static_cast<float>(i) + 10);
  }
  EXPECT_EQ(worker_->Stop(), RunEnd::kStopped);
  EXPECT_GT(most, 1);
  EXPECT_LE(most, 4);
  EXPECT_LT(model_stats().model.runs, 12U);
}

TEST_F(CallFromStage, OneAtATimeUnlessTheStageSaysMore) {
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  Outer pass_on = PassOn(kAddOne);
  Start([&](const PythonStageCall& call) {
    most = std::max(most.load(), ++inside);
    pass_on(call);
    --inside;
  });
  std::vector<uint64_t> ids;
  for (int i = 0; i < 20; ++i) {
    ids.push_back(Send(static_cast<float>(i)));
  }
  for (const uint64_t id : ids) {
    EXPECT_EQ(server().Wait(id)[0].error, ErrorKind::kOk);
  }
  EXPECT_EQ(most, 1);
}

TEST_F(CallFromStage, ManySideBySideAreAllAnswered) {
  concurrency_ = 8;
  Start(PassOn(kAddOne), {{"run_us", "100"}});
  for (int round = 0; round < 20; ++round) {
    std::vector<uint64_t> ids;
    for (int i = 0; i < 20; ++i) {
      ids.push_back(Send(static_cast<float>(i)));
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      ASSERT_EQ(server().Wait(ids[i])[0].outputs.at(0).As<float>()[0], static_cast<float>(i) + 12);
    }
  }
  EXPECT_EQ(worker_->Stop(), RunEnd::kStopped);
  EXPECT_EQ(executor().stats().live_instances, 0U);
}

}  // namespace
}  // namespace msserving
