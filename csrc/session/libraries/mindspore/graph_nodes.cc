#include "session/libraries/mindspore/graph_nodes.h"

namespace msserving::mindspore_session {

Chains::Chains(const std::vector<GraphNode>& nodes, const std::vector<GraphValue>& outputs)
    : nodes_(nodes), readers_(nodes.size()), taken_(nodes.size(), false) {
  const auto add = [&](const GraphValue& value, size_t node, size_t operand) {
    if (value.node == kNoNode) return;
    Readers& of = readers_[value.node];
    if (value.output != 0) {
      of.others = true;
      return;
    }
    ++of.count;
    of.node = node;
    of.operand = operand;
  };
  for (size_t i = 0; i < nodes.size(); ++i) {
    for (size_t operand = 0; operand < nodes[i].operands.size(); ++operand) add(nodes[i].operands[operand], i, operand);
  }
  for (const GraphValue& output : outputs) add(output, kNoNode, 0);
}

const Readers* Chains::Next(size_t last, NodeKind kind) const {
  const Readers& readers = readers_[last];
  if (readers.count != 1 || readers.others || readers.node == kNoNode) return nullptr;
  if (nodes_[readers.node].kind != kind || taken_[readers.node]) return nullptr;
  for (size_t i = last; i <= readers.node; ++i) {
    if (nodes_[i].writes_in_place) return nullptr;
  }
  return &readers;
}

size_t Chains::Take(const Readers& next) {
  taken_[next.node] = true;
  return next.node;
}

}  // namespace msserving::mindspore_session
