#include "session/libraries/mindspore/convolution_groups.h"

namespace msserving::mindspore_session {
namespace {

ConvolutionGroup Grow(size_t convolution, Chains* chains) {
  ConvolutionGroup group;
  group.convolution = group.last = convolution;
  while (const Readers* next = chains->Next(group.last, NodeKind::kAffine)) {
    if (next->operand != 0) break;
    group.affine.push_back(group.last = chains->Take(*next));
  }
  if (const Readers* next = chains->Next(group.last, NodeKind::kAdd)) {
    group.residual = 1 - next->operand;
    group.add = group.last = chains->Take(*next);
  }
  for (const NodeKind kind : {NodeKind::kRelu, NodeKind::kRelu6}) {
    if (group.activation != kNoNode) break;
    if (const Readers* next = chains->Next(group.last, kind)) group.activation = group.last = chains->Take(*next);
  }
  return group;
}

}  // namespace

std::vector<ConvolutionGroup> FindConvolutionGroups(const std::vector<GraphNode>& nodes,
                                                    const std::vector<GraphValue>& outputs) {
  Chains chains(nodes, outputs);
  std::vector<ConvolutionGroup> groups;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].kind == NodeKind::kConvolution && !nodes[i].writes_in_place) groups.push_back(Grow(i, &chains));
  }
  return groups;
}

}  // namespace msserving::mindspore_session
