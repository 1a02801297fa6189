#include "worker/method_plan.h"

#include <algorithm>

#include "worker/nested_call.h"

namespace msserving {
namespace {

const char* DefaultTag(StageKind kind) {
  switch (kind) {
    case StageKind::kModel: return "Predict";
    case StageKind::kPython: return "Stage";
    case StageKind::kBuiltin: return "Postprocess";
  }
  return "Stage";
}

}  // namespace

MethodPlan::MethodPlan(const MethodGraph& checked)
    : name(checked.signature.name),
      inputs(static_cast<uint16_t>(checked.signature.inputs.size())),
      values(inputs),
      timeout_ns(checked.timeout_ns) {
  std::vector<uint16_t> first{0};  // value number of the first value of stage 0 (the inputs), 1, …
  const auto number = [&first](const ValueRef& ref) { return static_cast<uint16_t>(first[ref.stage] + ref.index); };
  for (const Stage& stage : checked.stages) {
    StagePlan plan;
    plan.kind = stage.kind;
    plan.at_once = stage.at_once;
    plan.concurrency = stage.concurrency;
    plan.target = stage.target;
    plan.subgraph = stage.subgraph;
    plan.batch_size = stage.batch_size;
    plan.stacked = stage.stacked;
    plan.failure = stage.failure.empty() ? ErrorKind::kStageFailed : ErrorKind::kCallFailed;
    plan.outputs = static_cast<uint16_t>(stage.outputs);
    plan.first_output = values;
    // A model's failure has one name, whatever the tag, unless the stage says it all.
    const bool own_tag = !stage.tag.empty() && stage.kind != StageKind::kModel;
    plan.failed =
        stage.failure.empty() ? (own_tag ? stage.tag : DefaultTag(stage.kind)) + " Failed: " : stage.failure + ": ";
    for (const ValueRef& ref : stage.inputs) {
      plan.inputs.push_back(number(ref));
    }
    first.push_back(values);
    values = static_cast<uint16_t>(values + stage.outputs);
    stages.push_back(std::move(plan));
  }
  last_use.assign(values, 0);
  together.assign(values, 0);
  for (size_t i = 0; i < stages.size(); ++i) {
    for (const uint16_t value : stages[i].inputs) {
      last_use[value] = static_cast<uint16_t>(i);
      together[value] = stages[i].stacked ? 1 : together[value];
    }
  }
  for (const ValueRef& ref : checked.returns) {
    returns.push_back(number(ref));
    last_use[returns.back()] = static_cast<uint16_t>(stages.size());
  }
  for (size_t i = 0; i < stages.size(); ++i) {
    for (const uint16_t value : stages[i].inputs) {
      stages[i].write_back.push_back(last_use[value] > i ? 1 : 0);
    }
  }
}

void Instance::AddLost(uint16_t device) {
  if (mark != nullptr) {
    mark->AddLost(device);
  } else if (request->call != nullptr && request->call->frame != nullptr) {
    for (Instance* caller : request->call->frame->instances()) {
      caller->AddLost(device);
    }
  }
}

}  // namespace msserving
