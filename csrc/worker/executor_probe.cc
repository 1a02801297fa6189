// Probes: they show that requests come through, and run nothing of the user's.
#include <array>

#include "worker/executor.h"

namespace msserving {
namespace {

class NoResults final : public PythonStageSink {
 public:
  bool Put(uint32_t, uint32_t, const TensorView&) override { return false; }
  bool PutRows(uint32_t, uint32_t, uint32_t, const TensorView&) override { return false; }
  void Fail(uint32_t, std::string_view) override {}
};

}  // namespace

// After all methods.
void Executor::AddProbe() {
  auto plan = std::make_unique<MethodPlan>(MethodGraph());
  plan->internal = true;
  const size_t count = queues_.size();
  for (const Lane lane : {kPython, kDevice}) {
    for (size_t i = 0; i < count; ++i) {
      if (queues_[i]->lane != lane) {
        continue;
      }
      StagePlan stage;
      stage.kind = lane == kPython ? StageKind::kPython : StageKind::kModel;
      stage.target = lane == kPython ? queues_[i]->stage->target : 0;
      stage.outputs = 0;
      stage.queue = static_cast<uint32_t>(queues_.size());
      plan->stages.push_back(std::move(stage));
      queues_.push_back(std::make_unique<StageQueue>(BatchPolicy{1, 0}, clock_));
      queues_.back()->lane = lane;
      queues_.back()->probe = true;
      break;
    }
  }
  starts_inline_ = starts_inline_ || (!starts_[kDevice] && !starts_[kPython]);  // no method: probes come all the same
  probe_plan_ = static_cast<uint32_t>(plans_.size());
  plans_.push_back(std::move(plan));
  free_instances_.emplace_back();
}

void Executor::RunProbe(Hand& hand, StageQueue& queue) {
  if (queue.lane == kDevice && forwarder_ != nullptr && ForwardProbe(hand)) {
    return;
  }
  Instance* instance = hand.batch[0];
  if (queue.lane == kPython) {
    NoResults sink;
    PythonStageCall call{};
    call.function = instance->request->plan->stages[instance->stage].target;
    call.sink = &sink;
    python_(python_context_, &call);
  }
  ++instance->stage;
  Advance(hand, instance, nullptr);
}

// Of an extra worker: on to a device worker. False: there is none, which is no fault of this worker's.
bool Executor::ForwardProbe(Hand& hand) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!forwarder_->AnyDevice()) {
    return false;
  }
  ForwardedGroup* group = forwarder_->Reserve(RequestBlockBytes({}));
  if (group != nullptr) {
    WriteRequestBlock(forwarder_->memory(), group->offset, group->name(), kNoDeadline, kProbeMethod, 1, 0, {});
    if (forwarder_->Send(group, hand.batch, 0) != nullptr) {
      hand.batch[0]->queued = true;
      forwarder_->DoorbellsDue(&hand.devices);
      lock.unlock();
      RingDevices(hand);
      return true;
    }
  }
  hand.batch[0]->Fail(ErrorKind::kOverloaded, "there is no room on the way to the device worker");
  hand.finished.push_back(hand.batch[0]);
  return true;
}

}  // namespace msserving
