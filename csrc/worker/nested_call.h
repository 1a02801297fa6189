// Calls from inside a Python stage: what is known about the stage's instances, and what a call waits for.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <span>
#include <vector>

#include "worker/method_plan.h"

namespace msserving {

class StageFrame;

// What a call waits for. Pooled by the executor and changed under its lock.
struct NestedCall {
  std::vector<Instance*> instances;
  std::vector<Instance*> ready;       // stand before a Python stage, which the caller runs itself
  uint32_t remaining = 0;             // instances that have not finished
  const StageFrame* frame = nullptr;  // that the call is made from, while it lasts; null: a thread of the user's
  std::condition_variable changed;    // something for the caller to do, or to return with
};

// The outcome of a call, during Executor::Call() only.
class CallResults {
 public:
  CallResults(const MethodPlan& plan, std::span<Instance* const> instances) : plan_(plan), instances_(instances) {}

  uint32_t instances() const { return static_cast<uint32_t>(instances_.size()); }
  uint32_t outputs() const { return static_cast<uint32_t>(plan_.returns.size()); }
  // kOk, or why this instance has no outputs.
  ErrorKind error(uint32_t instance) const { return instances_[instance]->error; }
  const std::string& message(uint32_t instance) const { return instances_[instance]->message; }
  const TensorView& output(uint32_t instance, uint32_t number) const {
    return instances_[instance]->values[plan_.returns[number]];
  }

 private:
  const MethodPlan& plan_;
  const std::span<Instance* const> instances_;
};

// Says, while it lives, that this thread runs user code for `instances`.
class StageFrame {
 public:
  StageFrame(const void* executor, std::span<Instance* const> instances)
      : executor_(executor), instances_(instances), outer_(current_) {
    current_ = this;
  }
  ~StageFrame() { current_ = outer_; }
  StageFrame(const StageFrame&) = delete;

  // The innermost frame of this thread, if it is this executor's; else null.
  static const StageFrame* Current(const void* executor) {
    return current_ != nullptr && current_->executor_ == executor ? current_ : nullptr;
  }

  void Narrow(std::span<Instance* const> instances) { instances_ = instances; }

  std::span<Instance* const> instances() const { return instances_; }
  bool alone() const {
    return std::any_of(instances_.begin(), instances_.end(), [](const Instance* one) { return one->alone; });
  }
  // The latest of the instances' deadlines: nobody needs a result later.
  int64_t deadline_ns() const {
    int64_t latest_ns = INT64_MIN;
    for (const Instance* instance : instances_) {
      latest_ns = std::max(latest_ns, instance->deadline_ns);
    }
    return instances_.empty() ? kNoDeadline : latest_ns;
  }
  // Of a single instance; null: not known, since others may still want the result.
  const std::atomic<uint32_t>* cancelled() const { return instances_.size() == 1 ? instances_[0]->cancelled : nullptr; }

 private:
  static inline thread_local StageFrame* current_ = nullptr;

  const void* const executor_;
  std::span<Instance* const> instances_;
  StageFrame* const outer_;
};

}  // namespace msserving
