// Calls from inside user code: started, served and ended by the thread that makes them.
#include <algorithm>
#include <chrono>

#include "worker/executor.h"

namespace msserving {
namespace {

// A call within a call within …: each takes its share of the thread's stack.
constexpr int kMaxDepth = 32;
thread_local int t_depth = 0;

class DepthCount {
 public:
  DepthCount() { ++t_depth; }
  ~DepthCount() { --t_depth; }
  DepthCount(const DepthCount&) = delete;
};

}  // namespace

Status Executor::CheckCall(uint32_t method, uint32_t instances, size_t inputs) const {
  if (!running_) {
    return Status(ErrorKind::kInternal, "methods and models can be called only while the servable runs");
  }
  if (ended_) {
    return Status(ErrorKind::kCancelled, "the worker is ending");
  }
  if (method >= plans_.size()) {
    return Status(ErrorKind::kInternal, "there is no method " + std::to_string(method));
  }
  const MethodPlan& plan = *plans_[method];
  if (instances == 0) {
    return Status(ErrorKind::kInvalidInput, "a call needs at least one instance");
  }
  if (inputs != size_t{instances} * plan.inputs) {
    return Status(ErrorKind::kInvalidInput, std::to_string(inputs) + " inputs are given for " +
                                                std::to_string(instances) + " instances, method '" + plan.name +
                                                "' takes " + std::to_string(plan.inputs) + " for each");
  }
  if (t_depth >= kMaxDepth) {
    return Status(ErrorKind::kStageFailed, "calls are nested more than " + std::to_string(kMaxDepth) + " deep");
  }
  return Status::Ok();
}

Status Executor::Call(uint32_t method, uint32_t instances, std::span<const TensorView> inputs,
                      const std::function<void(const CallResults&)>& done) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (Status status = CheckCall(method, instances, inputs.size()); !status.ok()) {
    return status;
  }
  const DepthCount depth;
  now_ns_ = std::max(now_ns_, clock_.NowNs());
  Caller& call = *StartCall(method, instances, inputs);
  RunTaken(call.hand, nullptr, lock);
  while (call.remaining > 0) {
    ServeCall(call, lock);
  }
  lock.unlock();
  done(CallResults(*plans_[method], call.instances));
  lock.lock();
  EndCall(call);
  // What this thread had the device for, or left undone.
  InviteOthers();
  if (stopping_) {
    sleepers_.WakeOne();
  }
  return Status::Ok();
}

// Under the lock.
Executor::Caller* Executor::StartCall(uint32_t method, uint32_t instances, std::span<const TensorView> inputs) {
  Caller* call = nullptr;
  if (free_callers_.empty()) {
    call = &callers_.emplace_back();
    call->hand.room.resize(room_);
  } else {
    call = free_callers_.back();
    free_callers_.pop_back();
  }
  const MethodPlan& plan = *plans_[method];
  RequestState* request = NewRequest();
  request->record = nullptr;
  request->channel = nullptr;
  request->call = call;
  request->plan = &plan;
  request->plan_index = method;
  request->timeout_ns = 0;
  call->frame = StageFrame::Current(this);
  request->remaining = instances;
  call->remaining = instances;
  ++stats_.calls;
  stats_.call_instances += instances;
  live_ += instances;
  const StageFrame* frame = StageFrame::Current(this);
  const int64_t deadline_ns = frame != nullptr ? frame->deadline_ns() : kNoDeadline;
  const std::atomic<uint32_t>* cancelled = frame != nullptr ? frame->cancelled() : nullptr;
  for (uint32_t i = 0; i < instances; ++i) {
    Instance* instance = NewInstance(request);
    instance->index = i;
    instance->next = nullptr;
    instance->deadline_ns = deadline_ns;
    instance->cancelled = cancelled;
    instance->alone = frame != nullptr && frame->alone();
    std::copy_n(inputs.begin() + static_cast<std::ptrdiff_t>(size_t{i} * plan.inputs), plan.inputs,
                instance->values.get());
    call->instances.push_back(instance);
    if (IsCancelled(*instance)) {
      Drop(call->hand, instance, ErrorKind::kCancelled);
    } else if (deadline_ns <= now_ns_) {
      Drop(call->hand, instance, ErrorKind::kDeadlineExceeded);
    } else if (plan.stages.empty() || plan.stages[0].kind == StageKind::kBuiltin) {
      call->hand.arrived.push_back(instance);
    } else {
      Enqueue(instance);
    }
  }
  return call;
}

// One step, or a wait. Under the lock.
void Executor::ServeCall(Caller& call, std::unique_lock<std::mutex>& lock) {
  if (ended_) {
    AbandonQueued(call);
    if (call.remaining > 0) {
      call.changed.wait(lock);  // for the thread that has the others in hand
    }
    return;
  }
  if (!call.ready.empty()) {
    RunReady(call, lock);
    return;
  }
  now_ns_ = std::max(now_ns_, clock_.NowNs());
  Hand& hand = call.hand;
  hand.batch.clear();
  StageQueue* queue = TakeFrom(hand, kDevice);
  if (queue == nullptr && hand.finished.empty()) {
    WaitForChange(call, lock);
    return;
  }
  RunTaken(hand, queue, lock);
}

// The Python stage before which the longest-waiting ready instance stands, with all that stand there. Under the lock.
void Executor::RunReady(Caller& call, std::unique_lock<std::mutex>& lock) {
  Hand& hand = call.hand;
  hand.batch.clear();
  now_ns_ = std::max(now_ns_, clock_.NowNs());
  const uint16_t number = call.ready[0]->stage;
  StageQueue& queue = *queues_[call.ready[0]->request->plan->stages[number].queue];
  size_t kept = 0;
  for (Instance* instance : call.ready) {
    if (instance->stage != number) {
      call.ready[kept++] = instance;
    } else if (IsCancelled(*instance)) {
      Drop(hand, instance, ErrorKind::kCancelled);
    } else if (instance->deadline_ns <= now_ns_) {
      Drop(hand, instance, ErrorKind::kDeadlineExceeded);
    } else {
      hand.batch.push_back(instance);
    }
  }
  call.ready.resize(kept);
  const size_t instances = hand.batch.size();
  InviteOthers();
  lock.unlock();
  if (instances > 0) {
    RunPython(hand, queue);
  }
  const int64_t end_ns = clock_.NowNs();
  Publish(hand);
  lock.lock();
  now_ns_ = std::max(now_ns_, end_ns);
  EnqueueMoved(hand);
  TellCallers(hand, lock);
}

// The device is busy, or a queue waits for a fuller batch. Whoever has the device looks at the queues again when it is
// done; the wait for a fuller batch is this thread's own. Under the lock.
void Executor::WaitForChange(Caller& call, std::unique_lock<std::mutex>& lock) {
  InviteOthers();
  int64_t limit_ns = kNoDeadline;
  for (const auto& queue : queues_) {
    const int64_t at = queue->lane != kDevice || !MayRun(*queue) ? kNoDeadline : queue->queue.ReadyAtNs();
    if (at != kNoDeadline) {
      limit_ns = std::min(limit_ns, std::max<int64_t>(at, now_ns_) - now_ns_);
    }
  }
  if (limit_ns == kNoDeadline) {
    call.changed.wait(lock);
  } else {
    call.changed.wait_for(lock, std::chrono::nanoseconds(limit_ns));
  }
}

// The run has ended: nobody takes from the queues any more, and what lies in them stays there. Under the lock.
void Executor::AbandonQueued(Caller& call) {
  for (Instance* instance : call.instances) {
    if (instance->queued && instance->error == ErrorKind::kOk) {
      call.ready.push_back(instance);
    }
  }
  for (Instance* instance : call.ready) {
    instance->Fail(ErrorKind::kCancelled, "the worker is ending");
    --call.remaining;
  }
  call.ready.clear();
}

// Under the lock.
void Executor::EndCall(Caller& call) {
  RequestState* request = call.instances[0]->request;
  bool all = true;
  for (Instance* instance : call.instances) {
    instance->memory.Clear(memory_);
    --live_;
    if (instance->queued) {
      all = false;  // abandoned; the queue still points to it
    } else {
      free_instances_[request->plan_index].push_back(instance);
    }
  }
  if (all) {
    free_requests_.push_back(request);
  }
  call.instances.clear();
  call.ready.clear();
  free_callers_.push_back(&call);
}

// Takes the instances of calls out of hand.finished and counts them as done. Without the lock.
void Executor::FinishNested(Hand& hand) {
  size_t kept = 0;
  bool any = false;
  for (Instance* instance : hand.finished) {
    any = any || instance->request->call != nullptr;
  }
  if (!any) {
    return;
  }
  for (Instance* instance : hand.finished) {
    if (instance->request->call != nullptr && !CopyOut(instance)) {
      instance->Fail(ErrorKind::kInternal, "no memory for a result");
    }
  }
  std::unique_lock<std::mutex> lock(mutex_);
  for (Instance* instance : hand.finished) {
    NestedCall* call = instance->request->call;
    if (call == nullptr) {
      hand.finished[kept++] = instance;
    } else if (--call->remaining == 0) {  // the instance is the caller's again
      hand.callers.push_back(call);
    }
  }
  hand.finished.resize(kept);
  TellCallers(hand, lock);
}

// Under the lock, which it gives up for that.
void Executor::TellCallers(Hand& hand, std::unique_lock<std::mutex>& lock) {
  if (hand.callers.empty()) {
    return;
  }
  lock.unlock();
  for (NestedCall* call : hand.callers) {
    call->changed.notify_one();
  }
  hand.callers.clear();
  lock.lock();
}

}  // namespace msserving
