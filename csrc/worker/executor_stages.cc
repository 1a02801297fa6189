// Running stages. Nothing here holds the executor's lock.
#include <algorithm>
#include <cstring>
#include <utility>

#include "worker/argmax.h"
#include "worker/executor.h"
#include "worker/reply_block.h"

namespace msserving {
namespace {

// Inputs up to this size are copied before Python may write to them, so that the request's block stays as it came.
constexpr uint64_t kPrivateInputLimit = 64 << 10;
// A result of the last stage from this size on is written into the reply memory at once, if its place is known.
constexpr uint64_t kDirectReplyBytes = 64 << 10;

}  // namespace

void Executor::RunStage(Hand& hand, StageQueue& queue) {
  if (queue.graph != nullptr) {
    RunModel(hand, queue);
  } else {
    RunPython(hand, *queue.stage);
  }
  Publish(hand);
}

// Takes a model's outputs: what ends here goes straight from the session's buffers into the reply memory.
class Executor::ModelBatch final : public ModelSink {
 public:
  ModelBatch(Executor* executor, Hand* hand) : executor_(executor), hand_(hand) {}

  void OnRan(const ModelGraph& graph, std::span<const uint32_t> rows) override {
    for (size_t position = 0; position < rows.size(); ++position) {
      Instance* instance = hand_->batch[rows[position]];
      instance->SetRunning(0);
      const StagePlan& stage = instance->request->plan->stages[instance->stage];
      for (uint16_t i = 0; i < stage.outputs; ++i) {
        instance->values[stage.first_output + i] = graph.Output(i, position);
      }
      ++instance->stage;
      executor_->Advance(*hand_, instance, &stage);
    }
    executor_->Publish(*hand_);
  }

  void OnFailed(uint32_t row, const Status& reason) override {
    Instance* instance = hand_->batch[row];
    instance->SetRunning(0);
    if (reason.kind() == ErrorKind::kInvalidInput) {
      instance->Fail(reason.kind(), reason.message());
    } else {
      const StagePlan& stage = instance->request->plan->stages[instance->stage];
      instance->Fail(ErrorKind::kStageFailed, stage.failed + reason.message());
    }
    hand_->finished.push_back(instance);
  }

 private:
  Executor* executor_;
  Hand* hand_;
};

// Tells the server what is about to be run, and until when it may take if one of the methods has a time-out (true).
bool Executor::MarkRunning(std::span<Instance* const> batch, Lane lane) {
  int64_t shortest_ns = 0;
  for (Instance* instance : batch) {
    const int64_t timeout_ns = instance->mark != nullptr ? instance->request->plan->timeout_ns : 0;
    instance->SetRunning(static_cast<uint8_t>(kDeviceMark + lane + (timeout_ns > 0 ? kTimedMark : 0)));
    if (timeout_ns > 0 && (shortest_ns == 0 || timeout_ns < shortest_ns)) {
      shortest_ns = timeout_ns;
    }
  }
  if (shortest_ns == 0) {
    return false;
  }
  board_->limit_ns[lane].store(clock_.NowNs() + shortest_ns, std::memory_order_relaxed);
  return true;
}

void Executor::RunModel(Hand& hand, StageQueue& queue) {
  hand.pointers.clear();
  const bool limited = MarkRunning(hand.batch, kDevice);
  for (const Instance* instance : hand.batch) {
    for (const uint16_t value : instance->request->plan->stages[instance->stage].inputs) {
      hand.pointers.push_back(&instance->values[value]);
    }
  }
  ModelBatch sink(this, &hand);
  queue.graph->Run(static_cast<uint32_t>(hand.batch.size()), hand.pointers.data(), &sink);
  if (limited) {
    board_->limit_ns[kDevice].store(0, std::memory_order_relaxed);
  }
}

// Takes a Python stage's results into the instances' own memory.
class Executor::PythonBatch final : public PythonStageSink {
 public:
  PythonBatch(Executor* executor, Hand* hand, const StagePlan* stage)
      : executor_(executor), hand_(hand), stage_(stage), frame_(executor, hand->batch) {}

  void Enter(uint32_t first, uint32_t count) override {
    if (first <= hand_->batch.size() && count <= hand_->batch.size() - first) {
      Mark(std::span<Instance* const>(hand_->batch).subspan(first, count));
      frame_.Narrow(marked_);
    }
  }

  // What the user's function is being called with, for the server; nothing once it has returned.
  void Mark(std::span<Instance* const> instances) {
    if (std::exchange(limited_, false)) {
      executor_->board_->limit_ns[kPython].store(0, std::memory_order_relaxed);
    }
    for (Instance* instance : marked_) {
      instance->SetRunning(0);
    }
    marked_ = instances;
    limited_ = executor_->MarkRunning(marked_, kPython);
  }

  bool Put(uint32_t index, uint32_t output, const TensorView& value) override {
    if (index >= hand_->batch.size() || output >= stage_->outputs) {
      return false;
    }
    Instance* instance = hand_->batch[index];
    if (instance->error != ErrorKind::kOk) {
      return false;
    }
    const auto number = static_cast<uint16_t>(stage_->first_output + output);
    TensorView& kept = instance->values[number];
    if (kept.dtype != DataType::kUnknown) {
      instance->Fail(ErrorKind::kStageFailed, stage_->failed + "it gave output " + std::to_string(output) + " twice");
      return false;
    }
    kept = value;
    uint8_t* data = value.bytes >= kDirectReplyBytes ? executor_->ReserveReply(instance, number) : nullptr;
    if (data == nullptr) {
      data = instance->memory.Allocate(executor_->memory_, value.bytes);
    }
    if (data == nullptr) {
      instance->Fail(ErrorKind::kInternal, stage_->failed + "no memory for a result");
      return false;
    }
    if (value.bytes > 0) {
      std::memcpy(data, value.data, value.bytes);
    }
    kept.data = data;
    return true;
  }

  void Fail(uint32_t index, std::string_view message) override {
    if (index < hand_->batch.size()) {
      hand_->batch[index]->Fail(ErrorKind::kStageFailed, stage_->failed + std::string(message));
    }
  }

 private:
  Executor* executor_;
  Hand* hand_;
  const StagePlan* stage_;
  StageFrame frame_;
  std::span<Instance* const> marked_;
  bool limited_ = false;  // they have a time-out
};

void Executor::RunPython(Hand& hand, const StagePlan& stage) {
  hand.views.clear();
  for (Instance* instance : hand.batch) {
    for (const uint16_t value : stage.inputs) {
      if (instance->error == ErrorKind::kOk && !MakeWritable(instance, value)) {
        instance->Fail(ErrorKind::kInternal, stage.failed + "no memory for an input");
      }
    }
  }
  // Whoever failed just now does not reach Python.
  size_t kept = 0;
  for (Instance* instance : hand.batch) {
    if (instance->error != ErrorKind::kOk) {
      hand.finished.push_back(instance);
      continue;
    }
    hand.batch[kept++] = instance;
    for (const uint16_t value : stage.inputs) {
      hand.views.push_back(instance->values[value]);
    }
    for (uint16_t i = 0; i < stage.outputs; ++i) {
      instance->values[stage.first_output + i].dtype = DataType::kUnknown;
    }
  }
  hand.batch.resize(kept);
  if (kept == 0) {
    return;
  }
  PythonBatch sink(this, &hand, &stage);
  const PythonStageCall call{stage.target,
                             static_cast<uint32_t>(kept),
                             static_cast<uint32_t>(stage.inputs.size()),
                             stage.outputs,
                             stage.batch_size,
                             hand.views.data(),
                             stage.write_back.data(),
                             &sink};
  python_(python_context_, &call);
  sink.Mark({});
  for (Instance* instance : hand.batch) {
    for (uint16_t i = 0; i < stage.outputs && instance->error == ErrorKind::kOk; ++i) {
      if (instance->values[stage.first_output + i].dtype == DataType::kUnknown) {
        instance->Fail(ErrorKind::kStageFailed, stage.failed + "it gave no result for output " + std::to_string(i));
      }
    }
    if (instance->error != ErrorKind::kOk) {
      ReleaseReply(instance);
      hand.finished.push_back(instance);
      continue;
    }
    ++instance->stage;
    Advance(hand, instance, nullptr);
  }
}

// The place of a returned value in a reply block of its own, which is allocated here; null: take other memory. Only for
// the last stage, when all else that is returned is known.
uint8_t* Executor::ReserveReply(Instance* instance, uint16_t number) {
  if (instance->request->call != nullptr) {
    return nullptr;
  }
  const MethodPlan& plan = *instance->request->plan;
  if (instance->stage + size_t{1} != plan.stages.size() ||
      std::count(plan.returns.begin(), plan.returns.end(), number) != 1) {
    return nullptr;
  }
  for (const uint16_t returned : plan.returns) {
    if (instance->values[returned].dtype == DataType::kUnknown) {
      return nullptr;
    }
  }
  const uint64_t bytes = ReplyBlockBytes(plan, 1, ReplyPayloadBytes(*instance));
  ChannelState& state = *instance->request->channel;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    instance->reply_offset = state.held == nullptr ? state.channel->Allocate(bytes) : Channel::kNone;
  }
  if (instance->reply_offset == Channel::kNone) {
    return nullptr;
  }
  instance->reply_bytes = bytes;
  const auto output = std::find(plan.returns.begin(), plan.returns.end(), number) - plan.returns.begin();
  return state.channel->reply_memory() + instance->reply_offset +
         ReplyValueOffset(*instance, static_cast<size_t>(output));
}

void Executor::ReleaseReply(Instance* instance) {
  if (instance->reply_offset != Channel::kNone) {
    std::lock_guard<std::mutex> lock(mutex_);
    instance->request->channel->channel->Free(instance->reply_offset);
    instance->reply_offset = Channel::kNone;
  }
}

// The instance stands before instance->stage. `transient`: the model stage that has just run and whose outputs end
// with the session's next run.
void Executor::Advance(Hand& hand, Instance* instance, const StagePlan* transient) {
  const MethodPlan& plan = *instance->request->plan;
  while (instance->stage < plan.stages.size() && plan.stages[instance->stage].kind == StageKind::kBuiltin) {
    if (!RunBuiltin(instance, plan.stages[instance->stage])) {
      hand.finished.push_back(instance);
      return;
    }
    ++instance->stage;
  }
  if (instance->stage == plan.stages.size()) {
    hand.finished.push_back(instance);
    return;
  }
  for (uint16_t i = 0; transient != nullptr && i < transient->outputs; ++i) {
    const auto value = static_cast<uint16_t>(transient->first_output + i);
    if (plan.last_use[value] >= instance->stage && !KeepValue(instance, value)) {
      instance->Fail(ErrorKind::kInternal, transient->failed + "no memory for a result");
      hand.finished.push_back(instance);
      return;
    }
  }
  hand.moved.push_back(instance);
}

bool Executor::RunBuiltin(Instance* instance, const StagePlan& stage) {
  int64_t position = 0;
  if (Status status = Argmax(instance->values[stage.inputs[0]], &position); !status.ok()) {
    instance->Fail(ErrorKind::kStageFailed, stage.failed + status.message());
    return false;
  }
  uint8_t* data = instance->memory.Allocate(memory_, sizeof(position));
  if (data == nullptr) {
    instance->Fail(ErrorKind::kInternal, stage.failed + "no memory for a result");
    return false;
  }
  std::memcpy(data, &position, sizeof(position));
  TensorView& value = instance->values[stage.first_output];
  value.data = data;
  value.bytes = sizeof(position);
  value.dtype = DataType::kInt64;
  value.rank = 0;
  return true;
}

bool Executor::KeepValue(Instance* instance, uint16_t number) {
  TensorView& value = instance->values[number];
  uint8_t* data = instance->memory.Allocate(memory_, value.bytes);
  if (data == nullptr) {
    return false;
  }
  if (value.bytes > 0) {
    std::memcpy(data, value.data, value.bytes);
  }
  value.data = data;
  return true;
}

// Python may write to what it is handed. Values of earlier stages are the instance's own already.
bool Executor::MakeWritable(Instance* instance, uint16_t number) {
  const RequestState& request = *instance->request;
  if (request.call != nullptr) {  // the caller's memory is only read
    const bool callers = number < request.plan->inputs && !instance->memory.Owns(instance->values[number].data);
    return !callers || KeepValue(instance, number);
  }
  const Channel& channel = *request.channel->channel;
  const TensorView& value = instance->values[number];
  const bool shared = number < request.plan->inputs && value.data >= reinterpret_cast<const uint8_t*>(request.record) &&
                      value.data < channel.request_memory() + channel.request_bytes();
  if (!shared) {
    return true;
  }
  if (value.bytes <= kPrivateInputLimit) {
    return KeepValue(instance, number);
  }
  request.record->touched.store(1, std::memory_order_release);
  return true;
}

}  // namespace msserving
