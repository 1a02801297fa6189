// A worker whose Python stage is what the test says, and may call methods and models.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "support/gate.h"
#include "support/worker_under_test.h"

namespace msserving::testing_support {

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

inline TensorView ViewOfFloats(const std::vector<float>& values) {
  TensorView view;
  view.data = reinterpret_cast<const uint8_t*>(values.data());
  view.bytes = values.size() * sizeof(float);
  view.dtype = DataType::kFloat32;
  view.rank = 1;
  view.dims[0] = static_cast<int64_t>(values.size());
  return view;
}

inline std::vector<float> FloatsOf(const TensorView& view) {
  std::vector<float> values(view.bytes / sizeof(float));
  std::memcpy(values.data(), view.data, view.bytes);
  return values;
}

inline void PlusOne(const PythonStageCall& call) {
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

}  // namespace msserving::testing_support
