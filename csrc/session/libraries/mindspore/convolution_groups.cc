#include "session/libraries/mindspore/convolution_groups.h"

#include <algorithm>

namespace msserving::mindspore_session {
namespace {

// Who reads a node's first output; of the others it is enough to know that somebody does.
struct Readers {
  size_t count = 0;
  size_t node = kNoNode;
  size_t operand = 0;
  bool others = false;
};

std::vector<Readers> FindReaders(const std::vector<GraphNode>& nodes, const std::vector<GraphValue>& outputs) {
  std::vector<Readers> readers(nodes.size());
  const auto add = [&](const GraphValue& value, size_t node, size_t operand) {
    if (value.node == kNoNode) return;
    Readers& of = readers[value.node];
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
  return readers;
}

class Finder {
 public:
  Finder(const std::vector<GraphNode>& nodes, const std::vector<GraphValue>& outputs)
      : nodes_(nodes), readers_(FindReaders(nodes, outputs)), taken_(nodes.size(), false) {}

  ConvolutionGroup Grow(size_t convolution) {
    ConvolutionGroup group;
    group.convolution = group.last = convolution;
    while (const Readers* next = Next(group, NodeKind::kAffine)) {
      if (next->operand != 0) break;
      group.affine.push_back(Take(*next, &group));
    }
    if (const Readers* next = Next(group, NodeKind::kAdd)) {
      group.residual = 1 - next->operand;
      group.add = Take(*next, &group);
    }
    for (const NodeKind kind : {NodeKind::kRelu, NodeKind::kRelu6}) {
      if (group.activation != kNoNode) break;
      if (const Readers* next = Next(group, kind)) group.activation = Take(*next, &group);
    }
    return group;
  }

 private:
  const Readers* Next(const ConvolutionGroup& group, NodeKind kind) const {
    const Readers& readers = readers_[group.last];
    if (readers.count != 1 || readers.others || readers.node == kNoNode) return nullptr;
    if (nodes_[readers.node].kind != kind || taken_[readers.node]) return nullptr;
    for (size_t i = group.last; i <= readers.node; ++i) {
      if (nodes_[i].writes_in_place) return nullptr;
    }
    return &readers;
  }

  size_t Take(const Readers& next, ConvolutionGroup* group) {
    taken_[next.node] = true;
    group->last = next.node;
    return next.node;
  }

  const std::vector<GraphNode>& nodes_;
  const std::vector<Readers> readers_;
  std::vector<bool> taken_;
};

}  // namespace

std::vector<ConvolutionGroup> FindConvolutionGroups(const std::vector<GraphNode>& nodes,
                                                    const std::vector<GraphValue>& outputs) {
  Finder finder(nodes, outputs);
  std::vector<ConvolutionGroup> groups;
  for (size_t i = 0; i < nodes.size(); ++i) {
    if (nodes[i].kind == NodeKind::kConvolution && !nodes[i].writes_in_place) groups.push_back(finder.Grow(i));
  }
  return groups;
}

}  // namespace msserving::mindspore_session
