#include "worker/model.h"

#include <algorithm>

namespace msserving {

Status Model::Create(const std::vector<std::shared_ptr<Session>>& sessions, const ModelOptions& options,
                     std::unique_ptr<Model>* model) {
  if (sessions.empty()) {
    return Status(ErrorKind::kInternal, "a model needs at least one graph");
  }
  uint32_t lines = sessions[0]->runs_at_once();
  for (const auto& session : sessions) {
    lines = std::min(lines, session->runs_at_once());
  }
  auto made = std::make_unique<Model>();
  std::vector<std::shared_ptr<Session>> of_line = sessions;
  for (uint32_t line = 0; line < lines; ++line) {
    for (size_t i = 0; line > 0 && i < sessions.size(); ++i) {
      of_line[i] = sessions[i]->Sibling(line);
    }
    if (Status status = CreateGraphs(of_line, options, &made->lines_.emplace_back()); !status.ok()) {
      return status;
    }
  }
  *model = std::move(made);
  return Status::Ok();
}

Status Model::CreateGraphs(const std::vector<std::shared_ptr<Session>>& sessions, const ModelOptions& options,
                           Graphs* graphs) {
  for (size_t i = 0; i < sessions.size(); ++i) {
    std::unique_ptr<ModelGraph> graph;
    if (Status status = ModelGraph::Create(sessions[i], options, &graph); !status.ok()) {
      return Status(status.kind(), sessions.size() == 1 ? status.message()
                                                        : "sub-graph " + std::to_string(i) + ": " + status.message());
    }
    if (i > 0 && graph->max_batch() != graphs->front()->max_batch()) {
      return Status(ErrorKind::kInternal, "the sub-graphs of a model must have one batch size; sub-graph 0 has " +
                                              std::to_string(graphs->front()->max_batch()) + ", sub-graph " +
                                              std::to_string(i) + " has " + std::to_string(graph->max_batch()));
    }
    graphs->push_back(std::move(graph));
  }
  return Status::Ok();
}

}  // namespace msserving
