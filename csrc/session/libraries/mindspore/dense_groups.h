// Which operators of a graph can be run together with a dense layer. Knows nothing of MindSpore and of oneDNN.
#pragma once

#include <cstddef>
#include <vector>

#include "session/libraries/mindspore/graph_nodes.h"

namespace msserving::mindspore_session {

// A product with a constant matrix and what follows it, in this order. Run when its last node would run.
struct DenseGroup {
  size_t dense = kNoNode;
  struct Bias {
    size_t node;
    size_t operand;  // which one the vector is
  };
  std::vector<Bias> biases;
  std::vector<size_t> other_shapes;
  size_t activation = kNoNode;
  size_t last = kNoNode;
};

// As FindConvolutionGroups.
std::vector<DenseGroup> FindDenseGroups(const std::vector<GraphNode>& nodes, const std::vector<GraphValue>& outputs);

}  // namespace msserving::mindspore_session
