// Calls from inside Python stages and from users' own threads: results, shared batches, ends, and no deadlock.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "support/gate.h"
#include "support/worker_under_test.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

constexpr uint32_t kPublic = 0;  // the method that clients call
constexpr uint32_t kModel = 1;   // the model alone
constexpr uint32_t kAddOne = 2;  // a Python stage, the model, a Python stage
// Python functions of these tests.
constexpr uint32_t kOuter = 0;  // what the test says
constexpr uint32_t kPlusOne = 1;

struct Outcome {
  ErrorKind error = ErrorKind::kOk;
  std::string message;
  std::vector<float> values;
};

TensorView ViewOfFloats(const std::vector<float>& values) {
  TensorView view;
  view.data = reinterpret_cast<const uint8_t*>(values.data());
  view.bytes = values.size() * sizeof(float);
  view.dtype = DataType::kFloat32;
  view.rank = 1;
  view.dims[0] = static_cast<int64_t>(values.size());
  return view;
}

std::vector<float> FloatsOf(const TensorView& view) {
  std::vector<float> values(view.bytes / sizeof(float));
  std::memcpy(values.data(), view.data, view.bytes);
  return values;
}

void PlusOne(const PythonStageCall& call) {
  for (uint32_t i = 0; i < call.instances; ++i) {
    std::vector<float> values = FloatsOf(call.input[i * call.inputs]);
    if (values[0] == 99) {
      call.sink->Fail(i, "ValueError: ninety-nine");
      continue;
    }
    for (float& value : values) {
      value += 1;
    }
    if (call.write_back[0] != 0) {  // in place, as users may
      std::memcpy(const_cast<uint8_t*>(call.input[i * call.inputs].data), values.data(), values.size() * sizeof(float));
    }
    call.sink->Put(i, 0, ViewOfFloats(values));
  }
}

// A worker with the batched sum of two rows, and a public method of one Python stage that the test writes.
class CallFromStage : public ::testing::Test {
 protected:
  using Outer = std::function<void(const PythonStageCall&)>;

  void SetUpWorker(const SessionOptions& extra, ExecutorOptions options = {}) {
    worker_ = std::make_unique<WorkerUnderTest>(options);
    SessionOptions session = AddOptions();
    session.insert(session.end(), extra.begin(), extra.end());
    ModelOptions with_batch;
    with_batch.with_batch_dim = true;
    executor().AddModel(MakeModel(session, with_batch));
    Stage outer = PythonStage(kOuter, {{0, 0}, {0, 1}}, "Pipeline");
    outer.at_once = 1;
    outer.concurrency = concurrency_;
    Require(executor().AddMethod(Method("outer", {"x1", "x2"}, {"y"}, {outer}, {{1, 0}})));
    MethodGraph model = AddMethodGraph();
    model.signature.name = "model";
    Require(executor().AddMethod(model, model_use_));
    Require(executor().AddMethod(Method("add_one", {"x1", "x2"}, {"y"},
                                        {PythonStage(kPlusOne, {{0, 0}}, "Preprocess"), ModelStage({{1, 0}, {0, 1}}),
                                         PythonStage(kPlusOne, {{2, 0}}, "Postprocess")},
                                        {{3, 0}}),
                                 MethodUse::kInternal));
    worker_->OnPython([this](const PythonStageCall& call) {
      if (call.function == kPlusOne) {
        PlusOne(call);
      } else {
        outer_(call);
      }
    });
  }

  void Start(Outer outer, const SessionOptions& extra = {}, ExecutorOptions options = {}) {
    outer_ = std::move(outer);
    SetUpWorker(extra, options);
    worker_->Start();
  }

  Executor& executor() { return worker_->executor; }
  ServerSide& server() { return worker_->server; }

  // `rows`: two rows for each instance.
  Status Call(uint32_t method, const std::vector<std::vector<float>>& rows, std::vector<Outcome>* outcomes) {
    std::vector<TensorView> views;
    for (const auto& row : rows) {
      views.push_back(ViewOfFloats(row));
    }
    return executor().Call(method, static_cast<uint32_t>(rows.size() / 2), views, [&](const CallResults& results) {
      for (uint32_t i = 0; i < results.instances(); ++i) {
        Outcome& outcome = outcomes->emplace_back();
        outcome.error = results.error(i);
        outcome.message = results.message(i);
        if (outcome.error == ErrorKind::kOk) {
          outcome.values = FloatsOf(results.output(i, 0));
        }
      }
    });
  }

  // The outer function that hands its two rows to `method` and answers what comes back.
  Outer PassOn(uint32_t method) {
    return [this, method](const PythonStageCall& call) {
      for (uint32_t i = 0; i < call.instances; ++i) {
        call.sink->Enter(i, 1);
        std::vector<Outcome> outcomes;
        const Status status = Call(method, {FloatsOf(call.input[i * 2]), FloatsOf(call.input[i * 2 + 1])}, &outcomes);
        if (!status.ok()) {
          call.sink->Fail(i, status.message());
        } else if (outcomes[0].error != ErrorKind::kOk) {
          call.sink->Fail(i, outcomes[0].message);
        } else {
          call.sink->Put(i, 0, ViewOfFloats(outcomes[0].values));
        }
      }
    };
  }

  uint64_t Send(float first, int64_t deadline_ns = kNoDeadline) {
    return server().Send(kPublic, 2, {Floats({2}, {first, 1}), Floats({2}, {10, 20})}, deadline_ns);
  }

  StageStats model_stats() {
    for (const StageStats& stage : executor().stats().stages) {
      if (stage.kind == StageKind::kModel) {
        return stage;
      }
    }
    return {};
  }

  uint32_t concurrency_ = 1;
  MethodUse model_use_ = MethodUse::kInternal;
  Outer outer_;
  std::unique_ptr<WorkerUnderTest> worker_;
};

TEST_F(CallFromStage, RunsTheModel) {
  Start(PassOn(kModel));
  const auto answers = server().Wait(Send(1));
  ASSERT_EQ(answers[0].error, ErrorKind::kOk) << answers[0].message;
  EXPECT_EQ(answers[0].outputs[0].As<float>(), (std::vector<float>{11, 21}));
  EXPECT_EQ(worker_->Stop(), RunEnd::kStopped);
  const ExecutorStats stats = executor().stats();
  EXPECT_EQ(stats.requests, 1U);
  EXPECT_EQ(stats.instances, 1U);
  EXPECT_EQ(stats.calls, 1U);
  EXPECT_EQ(stats.call_instances, 1U);
  EXPECT_EQ(stats.live_instances, 0U);
}

TEST_F(CallFromStage, RunsAllStagesOfAMethodOnTheCallersValuesWithoutChangingThem) {
  std::vector<float> first{1, 2};
  std::vector<Outcome> outcomes;
  std::thread::id caller;
  Start([&](const PythonStageCall& call) {
    caller = std::this_thread::get_id();
    const std::vector<float> second{10, 20};
    const std::vector<TensorView> views{ViewOfFloats(first), ViewOfFloats(second)};
    const Status status = executor().Call(kAddOne, 1, views, [&](const CallResults& results) {
      EXPECT_EQ(std::this_thread::get_id(), caller);
      outcomes.push_back({results.error(0), results.message(0), FloatsOf(results.output(0, 0))});
    });
    EXPECT_TRUE(status.ok()) << status.message();
    call.sink->Put(0, 0, ViewOfFloats(outcomes.at(0).values));
  });
  const auto answers = server().Wait(Send(1));
  ASSERT_EQ(answers[0].error, ErrorKind::kOk) << answers[0].message;
  EXPECT_EQ(answers[0].outputs[0].As<float>(), (std::vector<float>{13, 24}));
  worker_->Stop();
  EXPECT_EQ(first, (std::vector<float>{1, 2}));
}

TEST_F(CallFromStage, InstancesOfOneCallShareRunsAndComeBackInOrder) {
  std::vector<Outcome> outcomes;
  Start([&](const PythonStageCall& call) {
    std::vector<std::vector<float>> rows;
    for (int i = 0; i < 11; ++i) {
      rows.push_back({static_cast<float>(i), 0});
      rows.push_back({100, 0});
    }
    EXPECT_TRUE(Call(kModel, rows, &outcomes).ok());
    call.sink->Put(0, 0, call.input[0]);
  });
  server().Wait(Send(1));
  worker_->Stop();
  ASSERT_EQ(outcomes.size(), 11U);
  for (size_t i = 0; i < 11; ++i) {
    ASSERT_EQ(outcomes[i].error, ErrorKind::kOk) << outcomes[i].message;
    EXPECT_EQ(outcomes[i].values[0], 100 + static_cast<float>(i));
  }
  EXPECT_EQ(model_stats().model.runs, 3U);  // 4 + 4 + 3
}

TEST_F(CallFromStage, BadInstanceFailsAlone) {
  std::vector<Outcome> outcomes;
  Start(
      [&](const PythonStageCall& call) {
        EXPECT_TRUE(Call(kAddOne, {{1, 0}, {0, 0}, {12, 0}, {0, 0}, {99, 0}, {0, 0}, {4, 0}, {0, 0}}, &outcomes).ok());
        call.sink->Put(0, 0, call.input[0]);
      },
      {{"fail_if_first_element", "13"}});
  server().Wait(Send(1));
  worker_->Stop();
  ASSERT_EQ(outcomes.size(), 4U);
  EXPECT_EQ(outcomes[0].values[0], 3);
  EXPECT_NE(outcomes[1].message.find("Predict Failed: "), std::string::npos) << outcomes[1].message;
  EXPECT_EQ(outcomes[2].message, "Preprocess Failed: ValueError: ninety-nine");
  EXPECT_EQ(outcomes[3].values[0], 6);
}

TEST_F(CallFromStage, WrongSizeIsAnErrorOfTheInstance) {
  std::vector<Outcome> outcomes;
  Start([&](const PythonStageCall& call) {
    EXPECT_TRUE(Call(kModel, {{1, 2, 3}, {1, 2}, {1, 2}, {3, 4}}, &outcomes).ok());
    call.sink->Put(0, 0, call.input[0]);
  });
  server().Wait(Send(1));
  worker_->Stop();
  EXPECT_EQ(outcomes[0].message, "Given model input 0 size 12 not match the size 8 defined in model");
  EXPECT_EQ(outcomes[1].values, (std::vector<float>{4, 6}));
}

TEST_F(CallFromStage, SharesABatchWithRequestsAndOtherCalls) {
  Gate gate;
  model_use_ = MethodUse::kPublic;
  Start(PassOn(kModel), gate.Options());
  // One row occupies the device; what comes meanwhile is one batch.
  const uint64_t first = server().Send(kModel, 2, {Floats({2}, {1, 1}), Floats({2}, {1, 1})});
  gate.AwaitRun();
  const uint64_t request = server().Send(kModel, 2, {Floats({2}, {2, 2}), Floats({2}, {1, 1})});
  const uint64_t outer = Send(5);
  std::vector<Outcome> own;
  std::thread user([&] { EXPECT_TRUE(Call(kModel, {{7, 0}, {1, 0}}, &own).ok()); });
  EXPECT_TRUE(Eventually([&] { return executor().stats().calls == 2; }));  // so what came before is queued, too
  gate.OpenForGood();
  EXPECT_EQ(server().Wait(outer)[0].outputs[0].As<float>()[0], 15);
  EXPECT_EQ(server().Wait(request)[0].outputs[0].As<float>()[0], 3);
  EXPECT_EQ(server().Wait(first)[0].outputs[0].As<float>()[0], 2);
  user.join();
  EXPECT_EQ(own.at(0).values[0], 8);
  EXPECT_EQ(worker_->Stop(), RunEnd::kStopped);
  EXPECT_EQ(model_stats().model.rows, 4U);
  EXPECT_EQ(model_stats().model.runs, 2U);
}

TEST_F(CallFromStage, AFullerBatchIsWaitedForNoLongerThanSaid) {
  ExecutorOptions options;
  options.max_wait_us = 50'000;
  Start(PassOn(kModel), {}, options);
  const int64_t begin_ns = RealClock().NowNs();
  const auto answers = server().Wait(Send(1));
  const int64_t took_ns = RealClock().NowNs() - begin_ns;
  EXPECT_EQ(answers[0].error, ErrorKind::kOk) << answers[0].message;
  EXPECT_GE(took_ns, 50 * kNanosPerMilli);
  EXPECT_LT(took_ns, 5'000 * kNanosPerMilli);
}

TEST_F(CallFromStage, OuterDeadlineEndsTheCall) {
  std::atomic<int> calls{0};
  std::vector<Outcome> outcomes;
  Start(
      [&](const PythonStageCall& call) {
        call.sink->Enter(0, 1);
        while (calls < 50) {
          ++calls;
          outcomes.clear();
          EXPECT_TRUE(Call(kModel, {{1, 0}, {1, 0}}, &outcomes).ok());
          if (outcomes.at(0).error != ErrorKind::kOk) {
            call.sink->Fail(0, outcomes[0].message);
            return;
          }
        }
      },
      {{"run_us", "20000"}});
  const auto answers = server().Wait(Send(1, RealClock().NowNs() + 100 * kNanosPerMilli));
  EXPECT_EQ(answers[0].message, "Pipeline Failed: the deadline passed before the request was done");
  worker_->Stop();
  EXPECT_EQ(outcomes.at(0).error, ErrorKind::kDeadlineExceeded);
  EXPECT_LT(calls, 10);
}

TEST_F(CallFromStage, OuterCancellationEndsTheCallButNotOthersOfTheBatch) {
  std::vector<Outcome> single;
  std::vector<Outcome> group;
  RequestRecord* record = nullptr;
  outer_ = [&](const PythonStageCall& call) {
    record->cancelled = 1;
    call.sink->Enter(0, 1);
    EXPECT_TRUE(Call(kAddOne, {{1, 0}, {1, 0}}, &single).ok());
    call.sink->Enter(0, 2);
    EXPECT_TRUE(Call(kModel, {{1, 0}, {1, 0}}, &group).ok());
    call.sink->Put(0, 0, call.input[0]);
    call.sink->Put(1, 0, call.input[2]);
  };
  SetUpWorker({});
  Stage stage = PythonStage(kOuter, {{0, 0}, {0, 1}}, "Pipeline");
  stage.batch_size = 2;
  Require(executor().AddMethod(Method("two", {"x1", "x2"}, {"y"}, {stage}, {{1, 0}})));
  const uint64_t id =
      server().Queue(3, 2, {Floats({2}, {1, 1}), Floats({2}, {1, 1}), Floats({2}, {2, 2}), Floats({2}, {2, 2})});
  record = server().Record(id);
  worker_->Start();
  server().Wait(id);
  worker_->Stop();
  EXPECT_EQ(single.at(0).error, ErrorKind::kCancelled);
  EXPECT_EQ(group.at(0).error, ErrorKind::kOk) << group.at(0).message;
}

TEST_F(CallFromStage, CallsWithinCallsEndInAnErrorRatherThanInAStackOverflow) {
  std::atomic<int> depth{0};
  std::string innermost;
  Start([&](const PythonStageCall& call) {
    ++depth;
    std::vector<Outcome> outcomes;
    const Status status = Call(kPublic, {FloatsOf(call.input[0]), FloatsOf(call.input[1])}, &outcomes);
    if (!status.ok()) {
      innermost = status.message();
      call.sink->Fail(0, "as deep as it goes");
    } else {
      call.sink->Fail(0, outcomes.at(0).message);
    }
  });
  EXPECT_EQ(server().Wait(Send(1))[0].error, ErrorKind::kStageFailed);
  worker_->Stop();
  EXPECT_EQ(innermost, "calls are nested more than 32 deep");
  EXPECT_EQ(depth, 33);
}

TEST_F(CallFromStage, RefusedWhenNothingRunsOrInputsDoNotFit) {
  outer_ = PassOn(kModel);
  SetUpWorker({});
  std::vector<Outcome> outcomes;
  EXPECT_NE(Call(kModel, {{1, 0}, {1, 0}}, &outcomes).message().find("only while the servable runs"),
            std::string::npos);
  worker_->Start();
  ASSERT_EQ(server().Wait(Send(1))[0].error, ErrorKind::kOk);
  const auto nobody = [](const CallResults&) { FAIL() << "there is no outcome"; };
  EXPECT_EQ(executor().Call(99, 1, {}, nobody).kind(), ErrorKind::kInternal);
  EXPECT_EQ(executor().Call(kModel, 0, {}, nobody).kind(), ErrorKind::kInvalidInput);
  const std::vector<float> row{1, 2};
  const TensorView one = ViewOfFloats(row);
  EXPECT_EQ(executor().Call(kModel, 1, {&one, 1}, nobody).message(),
            "1 inputs are given for 1 instances, method 'model' takes 2 for each");
  EXPECT_EQ(worker_->Stop(), RunEnd::kStopped);
  EXPECT_EQ(Call(kModel, {{1, 0}, {1, 0}}, &outcomes).message(), "the worker is ending");
}

TEST_F(CallFromStage, ClientsCannotStartInternalMethods) {
  Start(PassOn(kModel));
  server().Send(kModel, 2, {Floats({2}, {1, 1}), Floats({2}, {1, 1})});
  EXPECT_EQ(worker_->Join(), RunEnd::kBroken);
  EXPECT_NE(worker_->status().message().find("not for clients"), std::string::npos) << worker_->status().message();
  worker_.reset();
}

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
