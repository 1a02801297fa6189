// From ring entries to queued instances.
#include <algorithm>

#include "worker/executor.h"

namespace msserving {
namespace {

// Of one channel before the next one has its turn.
constexpr int kRequestsATurn = 256;

}  // namespace

void Executor::Accept(Hand& hand) {
  for (size_t i = 0; i < channels_.size(); ++i) {
    ChannelState& state = *channels_[next_channel_];
    next_channel_ = next_channel_ + 1 == channels_.size() ? 0 : next_channel_ + 1;
    Channel& channel = *state.channel;
    if (state.gone) {
      continue;
    }
    if (channel.HasReleases()) {
      channel.TakeReleases();
      state.retry = true;
    }
    if (channel.unsent()) {
      channel.PushUnsent();
      if (channel.DoorbellDue()) {
        channel.RingDoorbell();
        ++stats_.doorbells;
      }
    }
    RequestRecord* record = nullptr;
    for (int n = 0; n < kRequestsATurn && MayAccept(state) && channel.Receive(&record); ++n) {
      AcceptRequest(hand, state, record);
    }
    if (channel.broken()) {
      broken_ = channel.broken_reason();
      End(RunEnd::kBroken);
      return;
    }
  }
  DropGoneChannels();
  // Turns rotate: the next pass starts with another channel.
  if (channels_.size() > 1) {
    next_channel_ = next_channel_ + 1 == channels_.size() ? 0 : next_channel_ + 1;
  }
}

// The number of the plan that a request asks for; false: there is none, and the channel is broken.
bool Executor::PlanOf(const ChannelState& state, const RequestRecord& record, uint32_t* plan) {
  if (record.method == kProbeMethod && record.inputs == 0) {
    *plan = probe_plan_;
    return true;
  }
  if (state.extra != 0) {
    *plan = PlanOfForwarded(record);
    return true;
  }
  if (record.method >= plans_.size() || record.inputs != plans_[record.method]->inputs) {
    state.channel->Break(Status(ErrorKind::kInternal, "a request names a method or inputs that do not exist"));
    return false;
  }
  if (plans_[record.method]->internal) {
    state.channel->Break(Status(ErrorKind::kInternal, "a request names a method that is not for clients"));
    return false;
  }
  *plan = record.method;
  return true;
}

void Executor::AcceptRequest(Hand& hand, ChannelState& state, RequestRecord* record) {
  uint32_t method = 0;
  if (!PlanOf(state, *record, &method)) {
    return;
  }
  const MethodPlan& plan = *plans_[method];
  const bool refused = state.extra != 0 && method == refusing_plan_;
  RequestState* request = NewRequest();
  request->record = record;
  request->channel = &state;
  request->call = nullptr;
  request->plan = &plan;
  request->id = record->request;
  request->plan_index = method;
  request->timeout_ns = state.extra != 0 ? std::max<int64_t>(record->timeout_ns, 0) : plan.timeout_ns;
  request->remaining = record->instances;
  const bool expired = record->deadline_ns <= now_ns_;
  const uint8_t* memory = state.channel->request_memory();
  const TensorRecord* tensor = record->tensors();
  const uint32_t count = request->remaining;
  if (method != probe_plan_) {
    ++stats_.requests;
    stats_.instances += count;
  }
  live_ += count;
  ++state.requests;
  for (uint32_t i = 0; i < count; ++i) {
    Instance* instance = NewInstance(request);
    instance->index = i;
    instance->deadline_ns = record->deadline_ns;
    instance->cancelled = &record->cancelled;
    instance->mark = record->mark_of(i);
    const auto order = static_cast<InstanceOrder>(instance->mark->order);
    instance->alone = order == InstanceOrder::kRunAlone;
    for (uint16_t k = 0; k < plan.inputs; ++k) {
      instance->values[k] = ViewOf(memory, *tensor++);
    }
    if (refused) {
      instance->Fail(ErrorKind::kInternal, "the device worker has other models than the extra worker was started for");
      hand.finished.push_back(instance);
    } else if (expired) {
      Drop(hand, instance, ErrorKind::kDeadlineExceeded);
    } else if (order == InstanceOrder::kRefuse || order == InstanceOrder::kGivenUp) {
      const bool refused = order == InstanceOrder::kRefuse;
      instance->Fail(refused ? ErrorKind::kStageFailed : ErrorKind::kTimedOut, refused ? kRefusedText : kGivenUpText);
      hand.finished.push_back(instance);
    } else if (plan.stages.empty() || plan.stages[0].kind == StageKind::kBuiltin) {
      hand.arrived.push_back(instance);
    } else {
      Enqueue(instance);
    }
  }
}

RequestState* Executor::NewRequest() {
  if (free_requests_.empty()) {
    return &requests_.emplace_back();
  }
  RequestState* request = free_requests_.back();
  free_requests_.pop_back();
  return request;
}

Instance* Executor::NewInstance(RequestState* request) {
  auto& free = free_instances_[request->plan_index];
  Instance* instance = nullptr;
  if (free.empty()) {
    instance = &instances_.emplace_back();
    instance->values = std::make_unique<TensorView[]>(request->plan->values);
  } else {
    instance = free.back();
    free.pop_back();
  }
  instance->request = request;
  instance->stage = 0;
  instance->error = ErrorKind::kOk;
  instance->mark = nullptr;
  instance->alone = false;
  return instance;
}

void Executor::Enqueue(Instance* instance) {
  const StagePlan& stage = instance->request->plan->stages[instance->stage];
  if (instance->request->call != nullptr && stage.kind == StageKind::kPython) {
    instance->request->call->ready.push_back(instance);
    return;
  }
  instance->queued_ns = now_ns_;
  instance->queued = true;
  queues_[stage.queue]->queue.Push(instance);
}

void Executor::EnqueueMoved(Hand& hand) {
  for (Instance* instance : hand.moved) {
    Enqueue(instance);
    if (instance->request->call != nullptr) {
      hand.callers.push_back(instance->request->call);
    }
  }
  hand.moved.clear();
}

void Executor::Drop(Hand& hand, BatchItem* chain, ErrorKind kind) {
  while (chain != nullptr) {
    BatchItem* next = chain->next;
    chain->next = nullptr;
    auto* instance = static_cast<Instance*>(chain);
    const uint64_t counts = instance->request->call == nullptr ? 1 : 0;  // the request itself is told elsewhere
    if (kind == ErrorKind::kDeadlineExceeded) {
      instance->Fail(kind, "the deadline passed before the request was done");
      stats_.expired += counts;
    } else {
      instance->Fail(kind, "the request was cancelled");
      stats_.cancelled += counts;
    }
    instance->queued = false;
    hand.finished.push_back(instance);
    chain = next;
  }
}

}  // namespace msserving
