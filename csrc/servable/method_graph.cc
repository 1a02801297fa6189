#include "servable/method_graph.h"

#include <unordered_set>

namespace msserving {
namespace {

constexpr size_t kMaxStages = 1000;
constexpr uint32_t kMaxConcurrency = 64;
constexpr size_t kMaxValues = 4096;

class Checker {
 public:
  explicit Checker(const MethodGraph& graph) : graph_(graph) {}

  Status Run() {
    const MethodSignature& signature = graph_.signature;
    if (signature.name.empty()) {
      return Status(ErrorKind::kInternal, "a method has no name");
    }
    if (Status status = CheckNames("input", signature.inputs); !status.ok()) {
      return status;
    }
    if (Status status = CheckNames("output", signature.outputs); !status.ok()) {
      return status;
    }
    if (graph_.stages.size() > kMaxStages) {
      return Wrong("has " + std::to_string(graph_.stages.size()) + " stages, at most " + std::to_string(kMaxStages) +
                   " are possible");
    }
    counts_.push_back(signature.inputs.size());
    size_t values = signature.inputs.size();
    for (size_t i = 0; i < graph_.stages.size(); ++i) {
      if (Status status = CheckStage(i + 1, graph_.stages[i]); !status.ok()) {
        return status;
      }
      counts_.push_back(graph_.stages[i].outputs);
      values += graph_.stages[i].outputs;
    }
    if (values > kMaxValues) {
      return Wrong("has " + std::to_string(values) + " values, at most " + std::to_string(kMaxValues) +
                   " are possible");
    }
    return CheckReturns();
  }

 private:
  Status Wrong(const std::string& what) const {
    return Status(ErrorKind::kInternal, "method '" + graph_.signature.name + "' " + what);
  }

  Status CheckNames(const char* what, const std::vector<std::string>& names) const {
    std::unordered_set<std::string> seen;
    for (const std::string& name : names) {
      if (name.empty()) {
        return Wrong(std::string("has an ") + what + " without a name");
      }
      if (!seen.insert(name).second) {
        return Wrong(std::string("has the ") + what + " '" + name + "' twice");
      }
    }
    return Status::Ok();
  }

  std::string Name(size_t number, const Stage& stage) const {
    return "stage " + std::to_string(number) + (stage.tag.empty() ? "" : " (" + stage.tag + ")");
  }

  Status CheckRef(const std::string& where, const ValueRef& ref) const {
    if (ref.stage >= counts_.size()) {
      return Wrong(where + " reads from stage " + std::to_string(ref.stage) + ", which is not before it");
    }
    if (ref.index >= counts_[ref.stage]) {
      return Wrong(where + " reads value " + std::to_string(ref.index) + " of stage " + std::to_string(ref.stage) +
                   ", which has " + std::to_string(counts_[ref.stage]));
    }
    return Status::Ok();
  }

  Status CheckStage(size_t number, const Stage& stage) const {
    const std::string name = Name(number, stage);
    if (stage.outputs == 0 || stage.outputs > kMaxValues) {
      return Wrong(name + " must have 1 to " + std::to_string(kMaxValues) + " outputs, not " +
                   std::to_string(stage.outputs));
    }
    for (const ValueRef& ref : stage.inputs) {
      if (Status status = CheckRef(name, ref); !status.ok()) {
        return status;
      }
    }
    if (stage.concurrency == 0 || stage.concurrency > kMaxConcurrency) {
      return Wrong(name + " can run 1 to " + std::to_string(kMaxConcurrency) + " times at once, not " +
                   std::to_string(stage.concurrency));
    }
    if (stage.stacked && (stage.kind != StageKind::kPython || stage.batch_size == 0)) {
      return Wrong(name + " takes stacked arrays, so it must be a Python stage with a batch size");
    }
    if (stage.kind == StageKind::kBuiltin) {
      if (stage.target != static_cast<uint32_t>(Builtin::kArgmax)) {
        return Wrong(name + " names the unknown built-in " + std::to_string(stage.target));
      }
      if (stage.inputs.size() != 1 || stage.outputs != 1) {
        return Wrong(name + ": argmax takes one input and gives one output");
      }
    }
    return Status::Ok();
  }

  Status CheckReturns() const {
    if (graph_.returns.size() != graph_.signature.outputs.size()) {
      return Wrong("returns " + std::to_string(graph_.returns.size()) + " values for " +
                   std::to_string(graph_.signature.outputs.size()) + " output names");
    }
    if (graph_.returns.empty()) {
      return Wrong("returns nothing");
    }
    for (const ValueRef& ref : graph_.returns) {
      if (Status status = CheckRef("return", ref); !status.ok()) {
        return status;
      }
    }
    return Status::Ok();
  }

  const MethodGraph& graph_;
  std::vector<size_t> counts_;  // values that stage 0 (the inputs), 1, 2, … give
};

}  // namespace

Status MethodGraph::Check() const { return Checker(*this).Run(); }

}  // namespace msserving
