#include "worker/model.h"

namespace msserving {

Status Model::Create(const std::vector<std::shared_ptr<Session>>& sessions, const ModelOptions& options,
                     std::unique_ptr<Model>* model) {
  if (sessions.empty()) {
    return Status(ErrorKind::kInternal, "a model needs at least one graph");
  }
  auto made = std::make_unique<Model>();
  for (size_t i = 0; i < sessions.size(); ++i) {
    std::unique_ptr<ModelGraph> graph;
    if (Status status = ModelGraph::Create(sessions[i], options, &graph); !status.ok()) {
      return Status(status.kind(), sessions.size() == 1 ? status.message()
                                                        : "sub-graph " + std::to_string(i) + ": " + status.message());
    }
    if (i > 0 && graph->max_batch() != made->max_batch()) {
      return Status(ErrorKind::kInternal, "the sub-graphs of a model must have one batch size; sub-graph 0 has " +
                                              std::to_string(made->max_batch()) + ", sub-graph " + std::to_string(i) +
                                              " has " + std::to_string(graph->max_batch()));
    }
    made->graphs_.push_back(std::move(graph));
  }
  *model = std::move(made);
  return Status::Ok();
}

}  // namespace msserving
