#include "session/libraries/mindspore/dense_groups.h"

namespace msserving::mindspore_session {
namespace {

constexpr NodeKind kActivations[] = {NodeKind::kRelu, NodeKind::kRelu6, NodeKind::kSigmoid, NodeKind::kTanh,
                                     NodeKind::kGelu};

DenseGroup Grow(size_t dense, Chains* chains) {
  DenseGroup group;
  group.dense = group.last = dense;
  while (const Readers* next = chains->Next(group.last, NodeKind::kAddVector)) {
    group.last = chains->Take(*next);
    group.biases.push_back({group.last, 1 - next->operand});
  }
  while (const Readers* next = chains->Next(group.last, NodeKind::kOtherShape)) {
    if (next->operand != 0) break;
    group.other_shapes.push_back(group.last = chains->Take(*next));
  }
  for (const NodeKind kind : kActivations) {
    if (group.activation != kNoNode) break;
    if (const Readers* next = chains->Next(group.last, kind)) group.activation = group.last = chains->Take(*next);
  }
  return group;
}

}  // namespace

std::vector<DenseGroup> FindDenseGroups(const std::vector<GraphNode>& nodes, const std::vector<GraphValue>& outputs) {
  Chains chains(nodes, outputs);
  std::vector<DenseGroup> groups;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].kind == NodeKind::kDense && !nodes[i].writes_in_place) groups.push_back(Grow(i, &chains));
  }
  return groups;
}

}  // namespace msserving::mindspore_session
