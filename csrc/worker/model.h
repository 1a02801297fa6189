// A model as a method calls it: one or several sub-graphs, each with its own session.
#pragma once

#include <memory>
#include <vector>

#include "worker/model_graph.h"

namespace msserving {

// Sub-graphs run one at a time (the device is one).
class Model {
 public:
  // With a batch dimension all sub-graphs must have the same batch size.
  static Status Create(const std::vector<std::shared_ptr<Session>>& sessions, const ModelOptions& options,
                       std::unique_ptr<Model>* model);

  size_t subgraphs() const { return graphs_.size(); }
  ModelGraph& graph(size_t subgraph) { return *graphs_[subgraph]; }
  const ModelGraph& graph(size_t subgraph) const { return *graphs_[subgraph]; }
  uint32_t max_batch() const { return graphs_[0]->max_batch(); }

 private:
  std::vector<std::unique_ptr<ModelGraph>> graphs_;
};

}  // namespace msserving
