// Running Python stages. Nothing here holds the executor's lock, unless said otherwise.
#include <algorithm>
#include <cstring>
#include <utility>

#include "worker/executor.h"
#include "worker/reply_block.h"
#include "worker/stacked_rows.h"

namespace msserving {
namespace {

// A result of the last stage from this size on is written into the reply memory at once, if its place is known.
constexpr uint64_t kDirectReplyBytes = 64 << 10;

}  // namespace

// Runs a batch through a Python stage and the Python stages that follow it, each of which starts with what the one
// before has left in hand.moved. Takes results into the instances' own memory.
class Executor::PythonBatch final : public PythonStageSink {
 public:
  PythonBatch(Executor* executor, Hand* hand) : executor_(executor), hand_(hand), frame_(executor, hand->batch) {}

  // With the instances in hand.batch. Null: none of them is left.
  const PythonStageCall* Begin(StageQueue& queue) {
    queue_ = &queue;
    stage_ = queue.stage;
    begin_ns_ = executor_->clock_.NowNs();
    taken_ = hand_->batch.size();
    if (!executor_->PrepareInputs(*hand_, *stage_, &call_)) {
      CountRun();
      return nullptr;
    }
    for (Instance* instance : hand_->batch) {
      for (uint16_t i = 0; i < stage_->outputs; ++i) {
        instance->values[stage_->first_output + i].dtype = DataType::kUnknown;
      }
    }
    frame_.Narrow(hand_->batch);
    call_.sink = this;
    open_ = true;
    return &call_;
  }

  void Enter(uint32_t first, uint32_t count) override {
    if (first <= hand_->batch.size() && count <= hand_->batch.size() - first) {
      Mark(std::span<Instance* const>(hand_->batch).subspan(first, count));
      frame_.Narrow(marked_);
    }
  }

  bool Put(uint32_t index, uint32_t output, const TensorView& value) override {
    Instance* instance = Receiver(index, output);
    if (instance == nullptr) {
      return false;
    }
    const auto number = static_cast<uint16_t>(stage_->first_output + output);
    TensorView& kept = instance->values[number];
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

  bool PutRows(uint32_t first, uint32_t count, uint32_t output, const TensorView& rows) override {
    if (count == 0 || rows.rank == 0 || rows.dims[0] != count || rows.bytes % count != 0) {
      return false;
    }
    TensorView row = rows;
    row.bytes = rows.bytes / count;
    row.rank = static_cast<uint8_t>(rows.rank - 1);
    std::copy_n(rows.dims + 1, row.rank, row.dims);
    const bool together = count > 1 && row.bytes < kDirectReplyBytes;
    SharedRows* shared = together ? SharedRows::Create(executor_->memory_, rows.bytes, count) : nullptr;
    if (shared == nullptr) {
      bool all = true;
      for (uint32_t i = 0; i < count; ++i, row.data += row.bytes) {
        all = Put(first + i, output, row) && all;
      }
      return all;
    }
    std::copy_n(rows.data, rows.bytes, shared->data());
    row.data = shared->data();
    bool all = true;
    for (uint32_t i = 0; i < count; ++i, row.data += row.bytes) {
      Instance* instance = Receiver(first + i, output);
      if (instance == nullptr) {
        shared->Drop(executor_->memory_);
        all = false;
        continue;
      }
      instance->memory.Share(shared);
      instance->values[stage_->first_output + output] = row;
    }
    return all;
  }

  void Fail(uint32_t index, std::string_view message) override {
    if (index < hand_->batch.size()) {
      hand_->batch[index]->Fail(stage_->failure, stage_->failed + std::string(message));
    }
  }

  const PythonStageCall* Next() override {
    Mark({});
    if (!std::exchange(open_, false)) {
      return nullptr;
    }
    const size_t before = hand_->moved.size();
    for (Instance* instance : hand_->batch) {
      Finish(instance);
    }
    CountRun();
    hand_->batch.clear();
    StageQueue* next = QueueOfMoved(before);
    if (next == nullptr) {
      return nullptr;
    }
    hand_->batch.assign(hand_->moved.begin() + static_cast<std::ptrdiff_t>(before), hand_->moved.end());
    hand_->moved.resize(before);
    DropLate();
    return hand_->batch.empty() ? nullptr : Begin(*next);
  }

 private:
  // What the user's function is being called with, for the server; nothing once it has returned.
  void Mark(std::span<Instance* const> instances) {
    executor_->EndLimit(std::exchange(slot_, kNoLimit));
    for (Instance* instance : marked_) {
      instance->SetRunning(0);
    }
    marked_ = instances;
    slot_ = executor_->MarkRunning(marked_);
  }

  // Who gets output `output` of the index-th instance; null: nobody, it has failed.
  Instance* Receiver(uint32_t index, uint32_t output) {
    if (index >= hand_->batch.size() || output >= stage_->outputs) {
      return nullptr;
    }
    Instance* instance = hand_->batch[index];
    if (instance->error != ErrorKind::kOk) {
      return nullptr;
    }
    if (instance->values[stage_->first_output + output].dtype != DataType::kUnknown) {
      instance->Fail(stage_->failure, stage_->failed + "it gave output " + std::to_string(output) + " twice");
      return nullptr;
    }
    return instance;
  }

  void Finish(Instance* instance) {
    for (uint16_t i = 0; i < stage_->outputs && instance->error == ErrorKind::kOk; ++i) {
      if (instance->values[stage_->first_output + i].dtype == DataType::kUnknown) {
        instance->Fail(stage_->failure, stage_->failed + "it gave no result for output " + std::to_string(i));
      }
    }
    if (instance->error != ErrorKind::kOk) {
      executor_->ReleaseReply(instance);
      hand_->finished.push_back(instance);
      return;
    }
    ++instance->stage;
    executor_->Advance(*hand_, instance, nullptr);
  }

  void CountRun() {
    const int64_t end_ns = executor_->clock_.NowNs();
    std::lock_guard<std::mutex> lock(executor_->mutex_);
    queue_->instances += taken_;
    queue_->run_ns += static_cast<uint64_t>(end_ns - begin_ns_);
  }

  // Of the Python stage that all instances in hand.moved from `begin` on stand before; null: there is none, or they
  // are to come to it one by one.
  StageQueue* QueueOfMoved(size_t begin) {
    if (hand_->moved.size() == begin) {
      return nullptr;
    }
    const Instance& first = *hand_->moved[begin];
    const StagePlan& stage = first.request->plan->stages[first.stage];
    const size_t instances = hand_->moved.size() - begin;
    if (stage.kind != StageKind::kPython || (stage.at_once > 0 && instances > stage.at_once)) {
      return nullptr;
    }
    return executor_->queues_[stage.queue].get();
  }

  // Deadlines and cancellation hold between these stages, too.
  void DropLate() {
    const int64_t now_ns = executor_->clock_.NowNs();
    size_t kept = 0;
    for (Instance* instance : hand_->batch) {
      const bool late = instance->deadline_ns <= now_ns;
      if (!late && !IsCancelled(*instance)) {
        hand_->batch[kept++] = instance;
        continue;
      }
      instance->next = nullptr;
      std::lock_guard<std::mutex> lock(executor_->mutex_);
      executor_->Drop(*hand_, instance, late ? ErrorKind::kDeadlineExceeded : ErrorKind::kCancelled);
    }
    hand_->batch.resize(kept);
  }

  Executor* executor_;
  Hand* hand_;
  StageQueue* queue_ = nullptr;
  const StagePlan* stage_ = nullptr;
  PythonStageCall call_{};
  int64_t begin_ns_ = 0;
  size_t taken_ = 0;
  bool open_ = false;
  StageFrame frame_;
  std::span<Instance* const> marked_;  // in hand_->batch
  int slot_ = kNoLimit;
};

void Executor::RunPython(Hand& hand, StageQueue& queue) {
  PythonBatch batch(this, &hand);
  for (const PythonStageCall* call = batch.Begin(queue); call != nullptr; call = batch.Next()) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ++stats_.python_calls;
    }
    python_(python_context_, call);
  }
}

// Fills hand.views and `call` for the instances in hand.batch, without those that there is no memory for. False: none
// is left.
bool Executor::PrepareInputs(Hand& hand, const StagePlan& stage, PythonStageCall* call) {
  const size_t inputs = stage.inputs.size();
  hand.views.clear();
  for (const Instance* instance : hand.batch) {
    for (const uint16_t value : stage.inputs) {
      hand.views.push_back(instance->values[value]);
    }
  }
  *call = {stage.target,
           static_cast<uint32_t>(hand.batch.size()),
           static_cast<uint32_t>(inputs),
           stage.outputs,
           stage.batch_size,
           stage.stacked,
           hand.views.data(),
           stage.write_back.data(),
           nullptr};
  for (uint32_t first = 0; first < call->instances;) {
    const uint32_t end = stage.stacked ? StackEnd(*call, first) : first + 1;
    for (uint32_t k = 0; k < inputs; ++k) {
      PrepareInput(hand, stage, *call, first, end, k);
    }
    first = end;
  }
  size_t kept = 0;
  for (size_t i = 0; i < hand.batch.size(); ++i) {
    Instance* instance = hand.batch[i];
    if (instance->error != ErrorKind::kOk) {
      hand.finished.push_back(instance);
      continue;
    }
    for (size_t k = 0; k < inputs; ++k) {
      hand.views[kept * inputs + k] = instance->values[stage.inputs[k]];
    }
    hand.batch[kept++] = instance;
  }
  hand.batch.resize(kept);
  call->instances = static_cast<uint32_t>(kept);
  return kept > 0;
}

// Input `k` of instances first to end - 1: what the function writes to must be writable.
void Executor::PrepareInput(Hand& hand, const StagePlan& stage, const PythonStageCall& call, uint32_t first,
                            uint32_t end, uint32_t k) {
  const TensorView& row = call.input[size_t{first} * call.inputs + k];
  const bool stacked = stage.stacked && !IsText(row.dtype);
  const bool copied = stacked ? StackIsCopied(call, first, end, k) : row.bytes <= kOwnCopyBytes;
  if (row.dtype == DataType::kString || (copied && stage.write_back[k] == 0)) {
    return;  // the function gets a copy, and what it does to that ends with the call
  }
  const uint64_t bytes = copied || !stacked ? row.bytes : row.bytes * (end - first);
  for (uint32_t i = first; i < end; ++i) {
    Instance* instance = hand.batch[i];
    if (instance->error == ErrorKind::kOk && !MakeWritable(instance, stage.inputs[k], bytes)) {
      instance->Fail(ErrorKind::kInternal, stage.failed + "no memory for an input");
    }
  }
}

// Values of earlier stages are the instance's own already. `bytes`: of all that the function gets as one array. Up to
// kOwnCopyBytes they are copied, so that the request's block stays as it came.
bool Executor::MakeWritable(Instance* instance, uint16_t number, uint64_t bytes) {
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
  if (bytes <= kOwnCopyBytes) {
    return KeepValue(instance, number);
  }
  request.record->touched.store(1, std::memory_order_release);
  return true;
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

}  // namespace msserving
