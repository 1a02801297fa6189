// An executor with the test double behind it, run on a thread, and a Python side made of C++ lambdas.
#pragma once

#include <functional>
#include <thread>

#include "support/server_side.h"
#include "worker/executor.h"

namespace msserving::testing_support {

inline std::shared_ptr<Session> OpenDouble(const SessionOptions& options) {
  std::unique_ptr<Session> session;
  Require(OpenLibrarySession(MSSERVING_TEST_SESSION_LIBRARY, options, &session));
  return session;
}

inline std::unique_ptr<Model> MakeModel(const SessionOptions& options, const ModelOptions& model_options) {
  std::unique_ptr<Model> model;
  Require(Model::Create({OpenDouble(options)}, model_options, &model));
  return model;
}

// The sum of two float[2] rows, batch size 4, compiled for 1, 2 and 4.
inline SessionOptions AddOptions() {
  return {{"op", "add"}, {"inputs", "float32[4,2];float32[4,2]"}, {"batch_sizes", "1,2,4"}};
}

inline Stage ModelStage(std::vector<ValueRef> inputs, uint32_t target = 0, uint32_t outputs = 1) {
  Stage stage;
  stage.kind = StageKind::kModel;
  stage.target = target;
  stage.inputs = std::move(inputs);
  stage.outputs = outputs;
  stage.tag = "Predict";
  return stage;
}

inline Stage PythonStage(uint32_t function, std::vector<ValueRef> inputs, std::string tag, uint32_t outputs = 1) {
  Stage stage;
  stage.kind = StageKind::kPython;
  stage.target = function;
  stage.inputs = std::move(inputs);
  stage.outputs = outputs;
  stage.tag = std::move(tag);
  return stage;
}

inline MethodGraph Method(std::string name, std::vector<std::string> inputs, std::vector<std::string> outputs,
                          std::vector<Stage> stages, std::vector<ValueRef> returns) {
  MethodGraph graph;
  graph.signature = {std::move(name), std::move(inputs), std::move(outputs)};
  graph.stages = std::move(stages);
  graph.returns = std::move(returns);
  return graph;
}

// Two inputs straight into model 0.
inline MethodGraph AddMethodGraph() {
  return Method("add", {"x1", "x2"}, {"y"}, {ModelStage({{0, 0}, {0, 1}})}, {{1, 0}});
}

class WorkerUnderTest {
 public:
  using Function = std::function<void(const PythonStageCall&)>;

  explicit WorkerUnderTest(ExecutorOptions options = {}, size_t reply_bytes = 64 << 20,
                           const Clock& clock = RealClock())
      : server(64 << 20, reply_bytes), executor(options, clock) {}
  ~WorkerUnderTest() {
    if (thread_.joinable()) {
      Stop();
    }
  }

  void OnPython(Function function) {
    function_ = std::move(function);
    executor.SetPythonStages(
        [](void* context, const PythonStageCall* call) { static_cast<WorkerUnderTest*>(context)->function_(*call); },
        this);
  }

  void Start(RunHooks hooks = {}) {
    executor.AddChannel(server.MakeWorkerChannel());
    thread_ = std::thread([this, hooks] { status_ = executor.Run(server.WorkerDoorbell(), hooks, &end_); });
  }

  RunEnd Stop() {
    executor.RequestStop();
    return Join();
  }

  RunEnd Join() {
    thread_.join();
    return end_;
  }

  const Status& status() const { return status_; }

  ServerSide server;
  Executor executor;

 private:
  Function function_;
  std::thread thread_;
  Status status_;
  RunEnd end_ = RunEnd::kInterrupted;
};

}  // namespace msserving::testing_support
