// Which operators of a graph can be run together with a convolution. Knows nothing of MindSpore and of oneDNN.
#pragma once

#include <cstddef>
#include <vector>

#include "session/libraries/mindspore/graph_nodes.h"

namespace msserving::mindspore_session {

// A convolution and what follows it, in this order. Run when its last node would run.
struct ConvolutionGroup {
  size_t convolution = kNoNode;
  std::vector<size_t> affine;
  size_t add = kNoNode;
  size_t residual = 0;  // which operand of `add` is not the convolution's
  size_t activation = kNoNode;
  size_t last = kNoNode;
};

// `nodes` in the order in which they run; `outputs` are the graph's. Each convolution gets a group, and no node is in
// two. What a node inside a group computes is read by the next one alone and is no output; no node that writes in place
// runs between a group's first and last.
std::vector<ConvolutionGroup> FindConvolutionGroups(const std::vector<GraphNode>& nodes,
                                                    const std::vector<GraphValue>& outputs);

}  // namespace msserving::mindspore_session
