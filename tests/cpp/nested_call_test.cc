// Calls from inside Python stages: results, shared batches, ends.
#include "nested_call_fixture.h"

namespace msserving {
namespace {

using namespace testing_support;  // NOLINT

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

}  // namespace
}  // namespace msserving
