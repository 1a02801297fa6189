// Running stages. Nothing here holds the executor's lock.
#include <algorithm>
#include <cstring>
#include <utility>

#include "worker/argmax.h"
#include "worker/executor.h"

namespace msserving {
namespace {

// Of results that wait for those of the runs behind them: what is larger is worth being written by itself.
constexpr size_t kKeptBytes = 16 << 10;

}  // namespace

void Executor::RunStage(Hand& hand, StageQueue& queue) {
  if (queue.probe) {
    RunProbe(hand, queue);
  } else if (queue.graph != nullptr && forwarder_ != nullptr) {
    Forward(hand, queue);
  } else if (queue.graph != nullptr) {
    RunModel(hand, queue);
  } else {
    RunPython(hand, queue);
  }
  Publish(hand);
}

// Takes a model's outputs: what ends here goes straight from the session's buffers into the reply memory.
class Executor::ModelBatch final : public ModelSink {
 public:
  // `more`: when these rows have run, others of the hand do.
  ModelBatch(Executor* executor, Hand* hand, std::span<Instance* const> batch, bool more)
      : executor_(executor), hand_(hand), batch_(batch), more_(more) {}

  void OnRan(const ModelGraph& graph, std::span<const uint32_t> rows) override {
    for (size_t position = 0; position < rows.size(); ++position) {
      Instance* instance = batch_[rows[position]];
      instance->SetRunning(0);
      const StagePlan& stage = instance->request->plan->stages[instance->stage];
      for (uint16_t i = 0; i < stage.outputs; ++i) {
        instance->values[stage.first_output + i] = graph.Output(i, position);
      }
    }
    if (executor_->keeps_together_) {
      KeepTogether(graph, rows);
    }
    const size_t finished = hand_->finished.size();
    for (const uint32_t row : rows) {
      Instance* instance = batch_[row];
      const StagePlan& stage = instance->request->plan->stages[instance->stage];
      ++instance->stage;
      executor_->Advance(*hand_, instance, &stage);
    }
    if (!more_ || !KeepResults(*hand_, finished)) {
      executor_->Publish(*hand_);
    }
  }

  void OnFailed(uint32_t row, const Status& reason) override {
    Instance* instance = batch_[row];
    instance->SetRunning(0);
    if (reason.kind() == ErrorKind::kInvalidInput || reason.kind() == ErrorKind::kWorkerUnavailable) {
      instance->Fail(reason.kind(), reason.message());
    } else {
      const StagePlan& stage = instance->request->plan->stages[instance->stage];
      instance->Fail(stage.failure, stage.failed + reason.message());
    }
    hand_->finished.push_back(instance);
  }

 private:
  // What a stage takes as stacked arrays later leaves the session's buffers as neighbouring rows of one block.
  void KeepTogether(const ModelGraph& graph, std::span<const uint32_t> rows) {
    const auto outputs = static_cast<uint16_t>(graph.outputs());
    for (uint16_t output = 0; output < outputs; ++output) {
      uint32_t users = 0;
      for (const uint32_t row : rows) {
        users += WantsTogether(*batch_[row], output) ? 1 : 0;
      }
      if (users < 2) {
        continue;  // Advance() keeps it
      }
      const uint64_t bytes = graph.Output(output, 0).bytes;
      SharedRows* shared = SharedRows::Create(executor_->memory_, users * bytes, users);
      uint8_t* to = shared != nullptr ? shared->data() : nullptr;
      for (size_t i = 0; shared != nullptr && i < rows.size(); ++i) {
        Instance* instance = batch_[rows[i]];
        if (!WantsTogether(*instance, output)) {
          continue;
        }
        TensorView& value = ValueOf(instance, output);
        std::copy_n(value.data, bytes, to);
        value.data = to;
        to += bytes;
        instance->memory.Share(shared);
      }
    }
  }

  static TensorView& ValueOf(Instance* instance, uint16_t output) {
    return instance->values[instance->request->plan->stages[instance->stage].first_output + output];
  }

  static bool WantsTogether(const Instance& instance, uint16_t output) {
    const MethodPlan& plan = *instance.request->plan;
    return plan.together[plan.stages[instance.stage].first_output + output] != 0;
  }

  Executor* executor_;
  Hand* hand_;
  std::span<Instance* const> batch_;
  const bool more_;
};

// Tells the server what is about to be run, and until when it may take if one of the methods has a time-out: then the
// slot on the board for EndLimit(), else kNoLimit.
int Executor::MarkRunning(std::span<Instance* const> batch) {
  int64_t shortest_ns = 0;
  for (const Instance* instance : batch) {
    const int64_t timeout_ns = instance->timeout_ns();
    if (timeout_ns > 0 && (shortest_ns == 0 || timeout_ns < shortest_ns)) {
      shortest_ns = timeout_ns;
    }
  }
  int slot = kNoLimit;
  if (shortest_ns > 0) {
    // In turns, so that a slot that the server has just found over its limit is not used again at once.
    uint64_t used = used_slots_.load(std::memory_order_relaxed);
    do {
      slot = kNoLimit;
      for (uint32_t i = 0; i < kTimedSlots && slot == kNoLimit; ++i) {
        const uint32_t candidate = (next_slot_.load(std::memory_order_relaxed) + i) % kTimedSlots;
        slot = (used >> candidate & 1) == 0 ? static_cast<int>(candidate) : kNoLimit;
      }
    } while (slot != kNoLimit && !used_slots_.compare_exchange_weak(used, used | uint64_t{1} << slot));
  }
  if (slot != kNoLimit) {
    next_slot_.store(static_cast<uint32_t>(slot) + 1, std::memory_order_relaxed);
    board_->limit_ns[slot].store(clock_.NowNs() + shortest_ns, std::memory_order_relaxed);
  }
  for (Instance* instance : batch) {
    const bool limited = slot != kNoLimit && instance->timeout_ns() > 0;
    instance->SetRunning(static_cast<uint8_t>(limited ? kFirstTimedMark + slot : kRunningMark));
  }
  return slot;
}

void Executor::EndLimit(int slot) {
  if (slot != kNoLimit) {
    board_->limit_ns[slot].store(0, std::memory_order_relaxed);
    used_slots_.fetch_and(~(uint64_t{1} << slot));
  }
}

void Executor::RunModel(Hand& hand, StageQueue& queue) {
  const std::span<Instance* const> batch(hand.batch);
  const size_t rows = queue.RunsSingly() ? 1 : batch.size();
  for (size_t first = 0; first < batch.size(); first += rows) {
    RunRows(hand, queue, batch.subspan(first, rows), first + rows < batch.size());
  }
}

void Executor::RunRows(Hand& hand, StageQueue& queue, std::span<Instance* const> rows, bool more) {
  hand.pointers.clear();
  const int slot = MarkRunning(rows);
  for (const Instance* instance : rows) {
    for (const uint16_t value : instance->request->plan->stages[instance->stage].inputs) {
      hand.pointers.push_back(&instance->values[value]);
    }
  }
  ModelBatch sink(this, &hand, rows, more);
  queue.lines[hand.token].graph->Run(static_cast<uint32_t>(rows.size()), hand.pointers.data(), &sink);
  EndLimit(slot);
}

// Of hand.finished from `first` on: copies what lies in the session's buffers, so that the session may run again before
// the answers are written. False: it is too much for that, they have to be written now.
bool Executor::KeepResults(Hand& hand, size_t first) {
  for (size_t i = first; i < hand.finished.size(); ++i) {
    Instance* instance = hand.finished[i];
    if (instance->error != ErrorKind::kOk) {
      continue;
    }
    if (instance->reply_offset != Channel::kNone) {
      return false;  // a large value of it is in its reply block already
    }
    const MethodPlan& plan = *instance->request->plan;
    for (const uint16_t number : plan.returns) {
      TensorView& value = instance->values[number];
      if (number < plan.inputs || instance->memory.Owns(value.data)) {
        continue;
      }
      if (value.bytes > kKeptBytes - hand.kept_bytes) {
        return false;
      }
      hand.kept.resize(kKeptBytes);
      uint8_t* const to = hand.kept.data() + hand.kept_bytes;
      std::copy_n(value.data, value.bytes, to);
      value.data = to;
      hand.kept_bytes += value.bytes;
    }
  }
  return true;
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
    const bool kept = plan.together[value] != 0 && instance->memory.Owns(instance->values[value].data);
    if (!kept && plan.last_use[value] >= instance->stage && !KeepValue(instance, value)) {
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
    instance->Fail(stage.failure, stage.failed + status.message());
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

}  // namespace msserving
