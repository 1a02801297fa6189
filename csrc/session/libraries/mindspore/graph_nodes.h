// A graph as the search for operators that run together sees it. Knows nothing of MindSpore and of oneDNN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace msserving::mindspore_session {

constexpr size_t kNoNode = SIZE_MAX;

enum class NodeKind {
  kOther,
  kConvolution,  // of operand 0 with constant weights
  kAffine,       // operand 0, each channel times a constant plus a constant: BatchNorm in inference, BiasAdd
  kAdd,          // of two operands of its output's shape
  kRelu,
  kRelu6,
  kDense,       // operand 0, a matrix, times a constant one
  kAddVector,   // a matrix (either operand) plus a constant vector, the same for each row
  kOtherShape,  // the numbers of operand 0, in their order, in another shape
  kSigmoid,
  kTanh,
  kGelu,  // by tanh
};

// An output of a node, or (node is kNoNode) a value from outside the graph.
struct GraphValue {
  size_t node = kNoNode;
  size_t output = 0;
};

struct GraphNode {
  NodeKind kind = NodeKind::kOther;
  std::vector<GraphValue> operands;
  bool writes_in_place = false;  // other numbers into memory that another node has written
};

// Who reads a node's first output; of the others it is enough to know that somebody does.
struct Readers {
  size_t count = 0;
  size_t node = kNoNode;
  size_t operand = 0;
  bool others = false;
};

// Follows values from node to node for as long as each is read by the next one alone and is no output. A node is given
// out once. The nodes, in the order in which they run, must outlive it.
class Chains {
 public:
  Chains(const std::vector<GraphNode>& nodes, const std::vector<GraphValue>& outputs);

  // The only reader of what `last` computes, if it is of this kind and no node that writes in place runs between.
  const Readers* Next(size_t last, NodeKind kind) const;

  size_t Take(const Readers& next);

 private:
  const std::vector<GraphNode>& nodes_;
  std::vector<Readers> readers_;
  std::vector<bool> taken_;
};

}  // namespace msserving::mindspore_session
