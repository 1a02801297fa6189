// A model as a method calls it: one or several sub-graphs, each with its own session.
#pragma once

#include <memory>
#include <vector>

#include "worker/model_graph.h"

namespace msserving {

// Sub-graphs run one at a time (the device is one), unless the sessions say that several runs may be under way
// (Session::runs_at_once()): then there are as many *lines*, and each sub-graph has a ModelGraph in each of them.
// Different lines are used by different threads at a time.
class Model {
 public:
  // With a batch dimension all sub-graphs must have the same batch size.
  static Status Create(const std::vector<std::shared_ptr<Session>>& sessions, const ModelOptions& options,
                       std::unique_ptr<Model>* model);

  size_t subgraphs() const { return lines_[0].size(); }
  uint32_t lines() const { return static_cast<uint32_t>(lines_.size()); }
  ModelGraph& graph(size_t subgraph, uint32_t line = 0) { return *lines_[line][subgraph]; }
  const ModelGraph& graph(size_t subgraph) const { return *lines_[0][subgraph]; }
  uint32_t max_batch() const { return lines_[0][0]->max_batch(); }

 private:
  using Graphs = std::vector<std::unique_ptr<ModelGraph>>;
  static Status CreateGraphs(const std::vector<std::shared_ptr<Session>>& sessions, const ModelOptions& options,
                             Graphs* graphs);

  std::vector<Graphs> lines_;
};

}  // namespace msserving
