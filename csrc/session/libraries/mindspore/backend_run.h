// Way 2: every call goes to MindSpore's backend. For what needs its runtime: control flow and dynamic shapes.
#pragma once

#include <vector>

#include "ir/tensor.h"
#include "session/libraries/mindspore/compiled_graph.h"
#include "session/libraries/mindspore/types.h"
#include "utils/any.h"

namespace msserving::mindspore_session {

class BackendRun : public GraphRunner {
 public:
  // Throws WrongWay if the graph has no backend.
  explicit BackendRun(CompiledGraph graph);

  void Run(const MsServingTensor* inputs, MsServingTensor* outputs) override;

  bool is_spoilt() const override { return is_spoilt_; }

 private:
  void CollectWeights();
  void CollectOutputs(const mindspore::BaseRef& value);
  void Emit(size_t index, MsServingTensor* output) const;

  CompiledGraph graph_;
  std::vector<mindspore::BaseRef> weights_;
  std::vector<mindspore::tensor::TensorPtr> results_;  // of the last run
  bool is_spoilt_ = false;  // MindSpore refuses every later run of a graph of which one has failed
};

}  // namespace msserving::mindspore_session
