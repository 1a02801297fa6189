// A device worker's side of its extra workers: their channels come and go while it runs.
#include <algorithm>

#include "worker/executor.h"

namespace msserving {

Status Executor::ServeExtraWorkers() {
  forwarded_.resize(models_.size());
  for (uint32_t model = 0; model < models_.size(); ++model) {
    for (uint32_t subgraph = 0; subgraph < models_[model]->subgraphs(); ++subgraph) {
      const ModelGraph& graph = models_[model]->graph(subgraph);
      MethodGraph method;
      method.signature.name = "@forwarded " + std::to_string(model) + "/" + std::to_string(subgraph);
      Stage stage;
      stage.kind = StageKind::kModel;
      stage.target = model;
      stage.subgraph = subgraph;
      stage.outputs = static_cast<uint32_t>(graph.outputs());
      for (size_t i = 0; i < graph.inputs(); ++i) {
        method.signature.inputs.push_back("x" + std::to_string(i));
        stage.inputs.push_back({0, static_cast<uint16_t>(i)});
      }
      for (size_t i = 0; i < graph.outputs(); ++i) {
        method.signature.outputs.push_back("y" + std::to_string(i));
        method.returns.push_back({1, static_cast<uint16_t>(i)});
      }
      method.stages.push_back(std::move(stage));
      if (Status status = AddMethod(method, MethodUse::kInternal); !status.ok()) {
        return status;
      }
      plans_.back()->stages[0].failed.clear();  // the extra worker knows what its stage is called
      plans_.back()->stages[0].failure = ErrorKind::kStageFailed;
      forwarded_[model].push_back(static_cast<uint32_t>(plans_.size() - 1));
      starts_[kDevice] = true;
    }
  }
  starts_inline_ = starts_inline_ || models_.empty();  // to refuse, no lane is needed
  refusing_plan_ = static_cast<uint32_t>(plans_.size());
  plans_.push_back(std::make_unique<MethodPlan>(MethodGraph()));
  free_instances_.emplace_back();
  return Status::Ok();
}

uint32_t Executor::PlanOfForwarded(const RequestRecord& record) const {
  const uint32_t model = record.method >> 16;
  const uint32_t subgraph = record.method & 0xFFFF;
  if (model >= forwarded_.size() || subgraph >= forwarded_[model].size()) {
    return refusing_plan_;
  }
  const uint32_t plan = forwarded_[model][subgraph];
  return record.inputs == plans_[plan]->inputs ? plan : refusing_plan_;
}

void Executor::AddExtra(uint64_t extra, std::unique_ptr<Channel> channel) {
  std::lock_guard<std::mutex> lock(mutex_);
  channels_.push_back(std::make_unique<ChannelState>());
  channels_.back()->channel = std::move(channel);
  channels_.back()->extra = extra;
  sleepers_.WakeOne();  // to look for what came before this, and to have its doorbell armed
}

void Executor::AddDevice(std::shared_ptr<DeviceLink> link) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (forwarder_ != nullptr) {
    forwarder_->Add(std::move(link));
    sleepers_.WakeOne();
  }
}

void Executor::Forget(uint64_t process, uint8_t given_up) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (forwarder_ != nullptr) {
    forwarder_->Remove(process, given_up);
  }
  for (const auto& state : channels_) {
    if (state->extra != process || process == 0) {
      continue;
    }
    state->gone = true;
    state->retry = true;  // what was held back is retired
    for (const RequestState& request : requests_) {
      if (request.channel == state.get() && request.remaining > 0) {
        request.record->cancelled.store(1, std::memory_order_relaxed);
      }
    }
  }
  sleepers_.WakeOne();
}

// Under the lock. A channel that nobody waits at goes with its last request: until then threads read its memory.
void Executor::DropGoneChannels() {
  const size_t before = channels_.size();
  std::erase_if(channels_,
                [](const auto& state) { return state->gone && state->requests == 0 && state->held == nullptr; });
  if (channels_.size() != before) {
    next_channel_ = 0;
  }
}

}  // namespace msserving
