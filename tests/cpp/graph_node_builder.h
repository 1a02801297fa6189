// Nodes of the small graphs in which tests look for groups.
#pragma once

#include <cstddef>
#include <vector>

#include "session/libraries/mindspore/graph_nodes.h"

namespace msserving::mindspore_session {

inline GraphNode Node(NodeKind kind, const std::vector<size_t>& operands) {
  GraphNode node;
  node.kind = kind;
  for (const size_t operand : operands) node.operands.push_back({operand, 0});
  return node;
}

inline GraphNode Relu(size_t source) { return Node(NodeKind::kRelu, {source}); }

}  // namespace msserving::mindspore_session
