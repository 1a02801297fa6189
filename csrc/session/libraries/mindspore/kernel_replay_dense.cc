// The part of KernelReplay that knows MindSpore's dense layers: a MatMul, a vector that is added, an activation.

#include <algorithm>
#include <string>

#include "session/libraries/mindspore/kernel_replay.h"
#include "session/libraries/mindspore/node_reading.h"

namespace msserving::mindspore_session {

namespace ms = mindspore;
using Algo = ms::common::AnfAlgo;

namespace {

bool IsMatrix(const Longs& shape) { return shape.size() == 2 && shape[0] > 0 && shape[1] > 0; }

// The product of a matrix [rows, inputs] and another, or nothing if it is any other node.
std::optional<DenseSpec> ReadDense(const ms::CNodePtr& node) {
  // A node that MindSpore itself has merged with others has more operands, or says so.
  if (Algo::GetCNodeName(node) != "MatMul" || Algo::GetInputTensorNum(node) != 4) return std::nullopt;
  if (Attribute<bool>(node, "with_bias_add").value_or(false) || Attribute<bool>(node, "with_relu").value_or(false)) {
    return std::nullopt;
  }
  const auto transposed = Number<ms::BoolImm>(node, 3);
  if (Number<ms::BoolImm>(node, 2) != false || !transposed) return std::nullopt;
  if (!OperandIsFloat32(node, 0) || !OperandIsFloat32(node, 1) || !IsFloat32(node, 0)) return std::nullopt;
  const Longs source = OperandShape(node, 0);
  const Longs destination = ShapeOf(node, 0);
  if (!IsMatrix(source) || !IsMatrix(destination)) return std::nullopt;
  DenseSpec spec;
  spec.rows = source[0];
  spec.inputs = source[1];
  spec.outputs = destination[1];
  spec.weights_are_transposed = *transposed;
  const Longs weights = *transposed ? Longs{spec.outputs, spec.inputs} : Longs{spec.inputs, spec.outputs};
  if (destination[0] != spec.rows || OperandShape(node, 1) != weights) return std::nullopt;
  return spec;
}

Activation ActivationOf(const std::string& name) {
  if (name == "ReLU") return Activation::kRelu;
  if (name == "ReLU6") return Activation::kRelu6;
  if (name == "Sigmoid") return Activation::kSigmoid;
  if (name == "Tanh") return Activation::kTanh;
  if (name == "GeLU") return Activation::kGelu;
  return Activation::kNone;
}

NodeKind KindOf(Activation activation) {
  switch (activation) {
    case Activation::kRelu: return NodeKind::kRelu;
    case Activation::kRelu6: return NodeKind::kRelu6;
    case Activation::kSigmoid: return NodeKind::kSigmoid;
    case Activation::kTanh: return NodeKind::kTanh;
    case Activation::kGelu: return NodeKind::kGelu;
    case Activation::kNone: break;
  }
  return NodeKind::kOther;
}

}  // namespace

// Whether this operand is a constant with one number for each column of the node's output, and the other one is of the
// output's shape.
bool KernelReplay::IsVectorFor(const ms::CNodePtr& node, size_t index) {
  const Longs output = ShapeOf(node, 0);
  const Longs vector = OperandShape(node, index);
  return OperandIsFloat32(node, 1 - index) && OperandShape(node, 1 - index) == output &&
         (vector == Longs{output[1]} || vector == Longs{1, output[1]}) && ConstantOperand(node, index) != nullptr;
}

NodeKind KernelReplay::MatrixKindOf(const ms::CNodePtr& node) {
  const std::string name = Algo::GetCNodeName(node);
  const size_t operands = Algo::GetInputTensorNum(node);
  if (name == "MatMul") {
    return ReadDense(node) && ConstantOperand(node, 1) != nullptr ? NodeKind::kDense : NodeKind::kOther;
  }
  if (operands == 0 || !IsFloat32(node, 0) || !OperandIsFloat32(node, 0)) return NodeKind::kOther;
  if (name == "Reshape") return NodeKind::kOtherShape;
  if (operands == 1) return KindOf(ActivationOf(name));
  if (!IsMatrix(ShapeOf(node, 0))) return NodeKind::kOther;
  if (name == "Add" && operands == 2) {
    return IsVectorFor(node, 0) != IsVectorFor(node, 1) ? NodeKind::kAddVector : NodeKind::kOther;
  }
  if (name == "BiasAdd") {
    return Number<ms::Int64Imm>(node, 2) == 0 && IsVectorFor(node, 1) ? NodeKind::kAddVector : NodeKind::kOther;
  }
  return NodeKind::kOther;
}

KernelReplay::Fused KernelReplay::MakeDense(const DenseGroup& group) {
  const auto& order = graph_.kernel_graph->execution_order();
  DenseSpec spec = *ReadDense(order[group.dense]);
  spec.weights = ConstantOperand(order[group.dense], 1);
  std::vector<double> shift(group.biases.empty() ? 0 : static_cast<size_t>(spec.outputs), 0);
  for (const DenseGroup::Bias& bias : group.biases) {
    const float* values = ConstantOperand(order[bias.node], bias.operand);
    for (size_t i = 0; i < shift.size(); ++i) shift[i] += values[i];
  }
  spec.bias.assign(shift.begin(), shift.end());
  if (group.activation != kNoNode) spec.activation = ActivationOf(Algo::GetCNodeName(order[group.activation]));
  Fused fused;
  fused.primitive = engine_->MakeDense(spec);
  fused.writes_plain = true;
  return fused;
}

}  // namespace msserving::mindspore_session
