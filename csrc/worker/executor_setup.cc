// Models and methods, before the run: plans made and queues laid out.
#include <algorithm>

#include "worker/executor.h"

namespace msserving {
namespace {

constexpr uint32_t kMostLines = 32;       // tokens of the device
constexpr uint32_t kPythonBound = 64;     // instances a Python stage is handed at once in a method without a model
constexpr uint32_t kForwardBound = 256;   // rows that an extra worker hands on at once
constexpr uint32_t kPythonBoundMin = 16;  // and at least this many before a model with small batches
constexpr uint32_t kSingleRuns = 32;      // runs of one row in turns, for one hand-over

// A stage is handed so much work at once: Python, and a model that runs one row at a time.
constexpr int64_t kPythonHandOverNs = 2 * kNanosPerMilli;
constexpr int64_t kModelHandOverNs = 50 * kNanosPerMicro;

}  // namespace

uint32_t Executor::AddModel(std::unique_ptr<Model> model) {
  const uint32_t lines = std::min(model->lines(), kMostLines);
  tokens_[kDevice] = models_.empty() ? lines : std::min(tokens_[kDevice], lines);
  models_.push_back(std::move(model));
  return static_cast<uint32_t>(models_.size() - 1);
}

void Executor::SetPythonStages(PythonStageFunction function, void* context) {
  python_ = function;
  python_context_ = context;
}

void Executor::AddChannel(std::unique_ptr<Channel> channel) {
  if (board_ == nullptr) {
    board_ = channel->board();
  }
  channels_.push_back(std::make_unique<ChannelState>());
  channels_.back()->channel = std::move(channel);
}

Status Executor::CheckStage(const MethodPlan& plan, size_t index) const {
  const StagePlan& stage = plan.stages[index];
  if (stage.kind != StageKind::kModel) {
    return Status::Ok();
  }
  const std::string where = "method '" + plan.name + "' stage " + std::to_string(index + 1);
  const auto wrong = [&where](const std::string& what) { return Status(ErrorKind::kInternal, where + what); };
  if (stage.target >= models_.size()) {
    return wrong(" names model " + std::to_string(stage.target) + ", there are " + std::to_string(models_.size()));
  }
  const Model& model = *models_[stage.target];
  if (stage.subgraph >= model.subgraphs()) {
    return wrong(" names sub-graph " + std::to_string(stage.subgraph) + ", the model has " +
                 std::to_string(model.subgraphs()));
  }
  const ModelGraph& graph = model.graph(stage.subgraph);
  if (stage.inputs.size() != graph.inputs()) {
    return wrong(": the inputs count " + std::to_string(stage.inputs.size()) + " is not equal to the count " +
                 std::to_string(graph.inputs()) + " of the model");
  }
  if (stage.outputs != graph.outputs()) {
    return wrong(": the outputs count " + std::to_string(stage.outputs) + " is not equal to the count " +
                 std::to_string(graph.outputs()) + " of the model");
  }
  return Status::Ok();
}

Status Executor::AddMethod(const MethodGraph& graph, MethodUse use) {
  if (Status status = graph.Check(); !status.ok()) {
    return status;
  }
  auto plan = std::make_unique<MethodPlan>(graph);
  plan->internal = use == MethodUse::kInternal;
  keeps_together_ = keeps_together_ || std::count(plan->together.begin(), plan->together.end(), 1) > 0;
  for (size_t i = 0; i < plan->stages.size(); ++i) {
    if (Status status = CheckStage(*plan, i); !status.ok()) {
      return status;
    }
  }
  for (StagePlan& stage : plan->stages) {
    if (stage.kind == StageKind::kModel) {
      stage.queue = QueueForModel(stage);
    } else if (stage.kind == StageKind::kPython) {
      stage.queue = QueueForPython(*plan, stage);
    }
  }
  if (plan->internal) {
    // Nothing of it arrives.
  } else if (plan->stages.empty() || plan->stages[0].kind == StageKind::kBuiltin) {
    starts_inline_ = true;
  } else {
    starts_[queues_[plan->stages[0].queue]->lane] = true;
  }
  plans_.push_back(std::move(plan));
  free_instances_.emplace_back();
  return Status::Ok();
}

uint32_t Executor::QueueForModel(const StagePlan& stage) {
  Model& model = *models_[stage.target];
  ModelGraph& graph = model.graph(stage.subgraph);
  for (uint32_t i = 0; i < queues_.size(); ++i) {
    if (queues_[i]->graph == &graph) {
      return i;
    }
  }
  const BatchPolicy run{graph.max_batch(), std::max(options_.max_wait_us, graph.max_wait_us())};
  const BatchPolicy forward{std::max(graph.max_batch(), kForwardBound), 0};  // waiting is the device worker's
  auto queue = std::make_unique<StageQueue>(forwarder_ != nullptr ? forward : run, clock_);
  queue->lane = kDevice;
  queue->graph = &graph;
  if (forwarder_ == nullptr && graph.max_batch() == 1 && model.lines() == 1) {
    queue->at_once = HandOverSize(1, 1, kSingleRuns, kModelHandOverNs);
  }
  for (uint32_t line = 0; line < model.lines(); ++line) {
    queue->lines.push_back({&model.graph(stage.subgraph, line), {}});
  }
  queue->name = "model " + std::to_string(stage.target) + " sub-graph " + std::to_string(stage.subgraph);
  queues_.push_back(std::move(queue));
  return static_cast<uint32_t>(queues_.size() - 1);
}

uint32_t Executor::PythonBound(const MethodPlan& plan, const StagePlan& stage) const {
  if (stage.at_once > 0) {
    return stage.at_once;
  }
  uint32_t bound = 0;
  for (const StagePlan& other : plan.stages) {
    if (other.kind == StageKind::kModel) {
      bound = std::max({bound, models_[other.target]->max_batch(), kPythonBoundMin});
    }
  }
  bound = bound > 0 ? bound : kPythonBound;
  // The Python stages that follow take over the batch as it is.
  for (const StagePlan* next = &stage; next <= &plan.stages.back() && next->kind != StageKind::kModel; ++next) {
    bound = std::max(bound, next->batch_size);
  }
  return bound;
}

uint32_t Executor::QueueForPython(const MethodPlan& plan, const StagePlan& stage) {
  auto queue = std::make_unique<StageQueue>(BatchPolicy{PythonBound(plan, stage), 0}, clock_);
  queue->lane = kPython;
  const bool before_model = std::any_of(plan.stages.begin(), plan.stages.end(), [&stage](const StagePlan& other) {
    return &other > &stage && other.kind == StageKind::kModel;
  });
  if (!before_model && stage.at_once == 0) {  // a model wants full batches
    queue->at_once =
        HandOverSize(UINT32_MAX, std::max(1U, stage.batch_size), queue->queue.max_batch(), kPythonHandOverNs);
  }
  tokens_[kPython] = std::max(tokens_[kPython], stage.concurrency);
  queue->plan = &plan;
  queue->stage = &stage;
  queue->name = "method '" + plan.name + "' stage " + std::to_string(&stage - plan.stages.data() + 1);
  queues_.push_back(std::move(queue));
  return static_cast<uint32_t>(queues_.size() - 1);
}

}  // namespace msserving
