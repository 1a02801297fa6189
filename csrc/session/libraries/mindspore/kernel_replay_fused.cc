// The part of KernelReplay that gives groups of nodes, and the poolings between convolutions, to oneDNN.

#include <algorithm>
#include <cmath>
#include <optional>
#include <stdexcept>
#include <string>

#include "session/libraries/mindspore/kernel_replay.h"
#include "session/libraries/mindspore/node_reading.h"

namespace msserving::mindspore_session {

namespace ms = mindspore;
using Algo = ms::common::AnfAlgo;
using RuntimeAlgo = ms::AnfAlgo;

namespace {

std::pair<ms::AnfNodePtr, size_t> OperandOf(const ms::CNodePtr& node, size_t index) {
  const auto previous = Algo::GetPrevNodeOutput(node, index, false);
  return {previous.first, previous.second};
}

// Of images in NCHW order, none of them empty.
bool IsImage(const Longs& shape) {
  return shape.size() == 4 && std::all_of(shape.begin(), shape.end(), [](int64_t dim) { return dim > 0; });
}

bool HasImages(const ms::CNodePtr& node) {
  return Algo::GetInputTensorNum(node) > 0 && OperandIsFloat32(node, 0) && IsFloat32(node, 0) &&
         IsImage(OperandShape(node, 0)) && IsImage(ShapeOf(node, 0));
}

std::optional<ConvolutionSpec> ReadConvolution(const ms::CNodePtr& node) {
  if (!HasImages(node) || Algo::GetInputTensorNum(node) != 2) return std::nullopt;
  const auto kernel = Attribute<Longs>(node, "kernel_size");
  const auto strides = Attribute<Longs>(node, "stride");
  const auto dilations = Attribute<Longs>(node, "dilation");
  const auto padding = Attribute<Longs>(node, "pad_list");
  const auto groups = Attribute<int64_t>(node, "group");
  if (!kernel || !strides || !dilations || !padding || !groups) return std::nullopt;
  if (kernel->size() != 2 || strides->size() != 4 || dilations->size() != 4 || padding->size() != 4)
    return std::nullopt;
  if (Attribute<std::string>(node, "format").value_or("") != "NCHW" || *groups < 1) return std::nullopt;
  ConvolutionSpec spec;
  spec.window = {OperandShape(node, 0),
                 ShapeOf(node, 0),
                 *kernel,
                 {(*strides)[2], (*strides)[3]},
                 {(*dilations)[2], (*dilations)[3]},
                 {(*padding)[0], (*padding)[2]},
                 {(*padding)[1], (*padding)[3]}};
  spec.groups = *groups;
  const Longs& source = spec.window.source;
  const Longs& destination = spec.window.destination;
  if (source[1] % *groups != 0 || destination[1] % *groups != 0) return std::nullopt;
  if (OperandShape(node, 1) != Longs{destination[1], source[1] / *groups, (*kernel)[0], (*kernel)[1]}) {
    return std::nullopt;
  }
  return spec;
}

std::optional<WindowSpec> ReadMaxPooling(const ms::CNodePtr& node) {
  if (Algo::GetCNodeName(node) != "MaxPool" || !HasImages(node)) return std::nullopt;
  const auto kernel = Attribute<Longs>(node, "kernel_size");
  const auto strides = Attribute<Longs>(node, "strides");
  const auto mode = Attribute<std::string>(node, "pad_mode");
  if (!kernel || !strides || kernel->size() != 4 || strides->size() != 4) return std::nullopt;
  if (Attribute<std::string>(node, "format").value_or("") != "NCHW" || (mode != "VALID" && mode != "SAME")) {
    return std::nullopt;
  }
  WindowSpec spec{OperandShape(node, 0),
                  ShapeOf(node, 0),
                  {(*kernel)[2], (*kernel)[3]},
                  {(*strides)[2], (*strides)[3]},
                  {1, 1},
                  {0, 0},
                  {0, 0}};
  for (size_t i = 0; mode == "SAME" && i < 2; ++i) {
    const int64_t read = (spec.destination[2 + i] - 1) * spec.strides[i] + spec.kernel[i];
    const int64_t missing = std::max<int64_t>(read - spec.source[2 + i], 0);
    spec.before[i] = missing / 2;
    spec.after[i] = missing - missing / 2;
  }
  return spec;
}

bool IsAddOfSameShapes(const ms::CNodePtr& node) {
  return HasImages(node) && Algo::GetInputTensorNum(node) == 2 && OperandIsFloat32(node, 1) &&
         OperandShape(node, 0) == ShapeOf(node, 0) && OperandShape(node, 1) == ShapeOf(node, 0);
}

}  // namespace

// The data of an operand that is a float32 weight or constant; null if it is none.
const float* KernelReplay::ConstantOperand(const ms::CNodePtr& node, size_t index) {
  const Value value = OperandOf(node, index);
  const auto value_node = value.first->cast<ms::ValueNodePtr>();
  if (tensors_.count(value) == 0 && (value_node == nullptr || !value_node->value()->isa<ms::tensor::Tensor>())) {
    return nullptr;
  }
  const Tensor& tensor = Find(value, 0);
  if (tensor.tensor == nullptr || tensor.tensor->dtype_id() != ms::kNumberTypeFloat32) return nullptr;
  return static_cast<const float*>(tensor.place.constant);
}

NodeKind KernelReplay::ImageKindOf(const ms::CNodePtr& node) {
  const std::string name = Algo::GetCNodeName(node);
  if (name == "Conv2D") {
    return ReadConvolution(node) && ConstantOperand(node, 1) != nullptr ? NodeKind::kConvolution : NodeKind::kOther;
  }
  if (name == "Add") return IsAddOfSameShapes(node) ? NodeKind::kAdd : NodeKind::kOther;
  if (name == "ReLU") return HasImages(node) ? NodeKind::kRelu : NodeKind::kOther;
  if (name == "ReLU6") return HasImages(node) ? NodeKind::kRelu6 : NodeKind::kOther;
  // The last operand but training and numbers is the format: 0 is NCHW.
  size_t constants = 0;
  if (name == "BiasAdd" && HasImages(node) && Number<ms::Int64Imm>(node, 2) == 0) {
    constants = 1;
  } else if (name == "BatchNorm" && HasImages(node) && Number<ms::BoolImm>(node, 5) == false &&
             Number<ms::FP32Imm>(node, 6) && Number<ms::Int64Imm>(node, 8) == 0) {
    constants = 4;
  }
  for (size_t i = 1; i <= constants; ++i) {
    if (ConstantOperand(node, i) == nullptr || OperandShape(node, i) != Longs{ShapeOf(node, 0)[1]}) {
      return NodeKind::kOther;
    }
  }
  return constants > 0 ? NodeKind::kAffine : NodeKind::kOther;
}

std::vector<GraphNode> KernelReplay::DescribeNodes() {
  const auto& graph = graph_.kernel_graph;
  const auto& order = graph->execution_order();
  std::map<ms::AnfNodePtr, size_t> positions;
  for (size_t i = 0; i < order.size(); ++i) positions[order[i]] = i;
  std::vector<GraphNode> nodes(order.size());
  for (size_t i = 0; i < order.size(); ++i) {
    nodes[i].kind = ImageKindOf(order[i]);
    if (nodes[i].kind == NodeKind::kOther) nodes[i].kind = MatrixKindOf(order[i]);
    for (size_t input = 0; input < Algo::GetInputTensorNum(order[i]); ++input) {
      const auto previous = Algo::GetPrevNodeOutput(order[i], input, false);
      const auto found = positions.find(previous.first);
      nodes[i].operands.push_back({found == positions.end() ? kNoNode : found->second, previous.second});
    }
    for (size_t output = 0; output < RuntimeAlgo::GetKernelMod(order[i])->GetOutputSizeList().size(); ++output) {
      if (nodes[i].kind == NodeKind::kOtherShape) continue;  // writes nothing, or what is there
      if (graph->IsInRefOutputMap({order[i], output})) nodes[i].writes_in_place = true;
    }
  }
  return nodes;
}

void KernelReplay::FindFused() {
  const auto& order = graph_.kernel_graph->execution_order();
  std::map<ms::AnfNodePtr, size_t> positions;
  for (size_t i = 0; i < order.size(); ++i) positions[order[i]] = i;
  std::vector<GraphValue> outputs;
  for (const auto& value : Algo::GetAllOutputWithIndex(graph_.kernel_graph->output())) {
    const auto found = positions.find(value.first);
    if (found != positions.end()) outputs.push_back({found->second, value.second});
  }
  is_in_group_.assign(order.size(), false);
  const std::vector<GraphNode> nodes = DescribeNodes();
  for (const ConvolutionGroup& group : FindConvolutionGroups(nodes, outputs)) {
    std::vector<size_t> members = group.affine;
    members.push_back(group.convolution);
    if (group.add != kNoNode) members.push_back(group.add);
    if (group.activation != kNoNode) members.push_back(group.activation);
    if (!Fuse(members, group.last, [&] { return MakeConvolution(group); })) continue;
    Fused& fused = fused_[group.last];
    fused.source = OperandOf(order[group.convolution], 0);
    if (group.add != kNoNode) fused.residual = OperandOf(order[group.add], group.residual);
    ++fused_counts_.convolutions;
    if (fused.winograd != nullptr) ++fused_counts_.winograd;
  }
  for (const DenseGroup& group : FindDenseGroups(nodes, outputs)) {
    std::vector<size_t> members{group.dense};
    for (const DenseGroup::Bias& bias : group.biases) members.push_back(bias.node);
    members.insert(members.end(), group.other_shapes.begin(), group.other_shapes.end());
    if (group.activation != kNoNode) members.push_back(group.activation);
    if (!Fuse(members, group.last, [&] { return MakeDense(group); })) continue;
    fused_[group.last].source = OperandOf(order[group.dense], 0);
    ++fused_counts_.dense_layers;
  }
}

// False: not for oneDNN, and MindSpore's kernels stay.
bool KernelReplay::Fuse(const std::vector<size_t>& members, size_t last, const std::function<Fused()>& make) {
  Fused fused;
  try {
    fused = make();
  } catch (const std::runtime_error&) {
    return false;
  }
  if (fused.winograd == nullptr && fused.primitive.handle == nullptr) return false;
  for (const size_t member : members) is_in_group_[member] = true;
  fused_[last] = std::move(fused);
  return true;
}

// What follows the convolution is folded into its weights and its bias, or done to its sums before they are stored.
ConvolutionSpec KernelReplay::SpecOf(const ConvolutionGroup& group) {
  const auto& order = graph_.kernel_graph->execution_order();
  ConvolutionSpec spec = *ReadConvolution(order[group.convolution]);
  spec.weights = ConstantOperand(order[group.convolution], 1);
  const auto channels = static_cast<size_t>(spec.window.destination[1]);
  std::vector<double> scale(channels, 1), shift(channels, 0);
  bool scales = false;
  for (const size_t position : group.affine) {
    const ms::CNodePtr& node = order[position];
    if (Algo::GetCNodeName(node) == "BiasAdd") {
      const float* bias = ConstantOperand(node, 1);
      for (size_t c = 0; c < channels; ++c) shift[c] += bias[c];
      continue;
    }
    scales = true;
    const float* gamma = ConstantOperand(node, 1);
    const float* beta = ConstantOperand(node, 2);
    const float* mean = ConstantOperand(node, 3);
    const float* variance = ConstantOperand(node, 4);
    const float epsilon = *Number<ms::FP32Imm>(node, 6);
    for (size_t c = 0; c < channels; ++c) {
      const double factor = gamma[c] / std::sqrt(static_cast<double>(variance[c]) + epsilon);
      scale[c] *= factor;
      shift[c] = (shift[c] - mean[c]) * factor + beta[c];
    }
  }
  if (scales) spec.scale.assign(scale.begin(), scale.end());
  if (!group.affine.empty()) spec.shift.assign(shift.begin(), shift.end());
  spec.has_residual = group.add != kNoNode;
  if (group.activation != kNoNode) {
    const bool is_relu6 = Algo::GetCNodeName(order[group.activation]) == "ReLU6";
    spec.activation = is_relu6 ? Activation::kRelu6 : Activation::kRelu;
  }
  return spec;
}

KernelReplay::Fused KernelReplay::MakeConvolution(const ConvolutionGroup& group) {
  const ConvolutionSpec spec = SpecOf(group);
  Fused fused;
  fused.winograd = choice_->Choose(spec);
  if (fused.winograd == nullptr) {
    fused.primitive = engine_->MakeConvolution(spec);
    return fused;
  }
  fused.primitive.source = engine_->ChannelsLast(spec.window.source);
  fused.primitive.destination = engine_->ChannelsLast(spec.window.destination);
  fused.primitive.residual = spec.has_residual ? fused.primitive.destination : nullptr;
  return fused;
}

// False: the node's kernel is to be launched.
bool KernelReplay::AddFusedStep(size_t index, const ms::CNodePtr& node) {
  if (!is_in_group_[index]) return AddPooling(node);
  const auto found = fused_.find(index);
  if (found == fused_.end()) return true;  // runs with the group's last node
  const auto& [source, residual, primitive, winograd, writes_plain] = found->second;
  WinogradPlaces places;
  places.source = PlaceIn(source, primitive.source);
  if (primitive.residual != nullptr) places.residual = PlaceIn(residual, primitive.residual);
  places.destination.buffer = NewBuffer(engine_->Bytes(primitive.destination), steps_.size());
  if (writes_plain) {
    const auto& like = RuntimeAlgo::GetOrCreateOutputKernelTensor(node, 0);
    tensors_[{node, 0}] = Keep(like, places.destination, like->size());
  } else {
    layouts_[{node, 0}] = {{primitive.destination, places.destination}};
  }
  if (winograd != nullptr) {
    AddWinograd(winograd, places);
    return true;
  }
  std::vector<Operand> operands{{DNNL_ARG_SRC, primitive.source, places.source},
                                {DNNL_ARG_DST, primitive.destination, places.destination}};
  if (primitive.residual != nullptr) {
    operands.push_back({DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, primitive.residual, places.residual});
  }
  AddPrimitive(primitive, std::move(operands));
  return true;
}

void KernelReplay::AddWinograd(const std::shared_ptr<const WinogradConvolution>& winograd, WinogradPlaces places) {
  places.scratch.buffer = NewBuffer(winograd->ScratchBytes(), steps_.size());
  Touch(places.source, steps_.size());
  Touch(places.residual, steps_.size());
  Step step;
  step.winograd = winograd;
  step.places = places;
  steps_.push_back(std::move(step));
}

void KernelReplay::RunWinograd(const Step& step, const MsServingTensor* inputs) const {
  const auto address = [&](const Place& place) {
    void* data = place.constant;
    if (place.buffer != kNone) data = scratch_ + plan_.offsets[place.buffer];
    if (place.input != kNone) data = inputs[place.input].data;
    return static_cast<float*>(data);
  };
  step.winograd->Run(address(step.places.source), address(step.places.residual), address(step.places.destination),
                     address(step.places.scratch));
}

// A pooling between fused convolutions stays in their layout.
bool KernelReplay::AddPooling(const ms::CNodePtr& node) {
  const auto spec = ReadMaxPooling(node);
  if (!spec) return false;
  const Value source = OperandOf(node, 0);
  const auto found = layouts_.find(source);
  if (found == layouts_.end() || tensors_.count(source) != 0) return false;
  const auto [layout, source_place] = found->second.front();
  Primitive primitive = engine_->MakeMaxPooling(*spec, layout);
  if (primitive.handle == nullptr) return false;
  Place place;
  place.buffer = NewBuffer(engine_->Bytes(primitive.destination), steps_.size());
  layouts_[{node, 0}] = {{primitive.destination, place}};
  AddPrimitive(primitive, {{DNNL_ARG_SRC, layout, source_place}, {DNNL_ARG_DST, primitive.destination, place}});
  return true;
}

// Where a value lies in this layout; puts it there first if it does not yet.
KernelReplay::Place KernelReplay::PlaceIn(const Value& value, const Layout& layout) {
  auto& known = layouts_[value];
  if (known.empty()) known.emplace_back(engine_->Plain(ShapeOf(value.first, value.second)), Find(value, 0).place);
  for (const auto& [existing, place] : known) {
    if (engine_->Equal(existing, layout)) return place;
  }
  const auto [from, source] = known.front();
  Place place;
  place.buffer = NewBuffer(engine_->Bytes(layout), steps_.size());
  AddPrimitive(engine_->MakeReorder(from, layout), {{DNNL_ARG_FROM, from, source}, {DNNL_ARG_TO, layout, place}});
  known.emplace_back(layout, place);
  return place;
}

// Makes a value that a primitive computed one that kernels can read.
void KernelReplay::MakePlain(const Value& value) {
  if (tensors_.count(value) != 0 || layouts_.count(value) == 0) return;
  const auto& like = RuntimeAlgo::GetOrCreateOutputKernelTensor(value.first, value.second);
  const Place place = PlaceIn(value, engine_->Plain(like->GetShapeVector()));
  tensors_[value] = Keep(like, place, like->size());
}

void KernelReplay::AddPrimitive(Primitive primitive, std::vector<Operand> operands) {
  if (primitive.scratchpad != nullptr) {
    Place place;
    place.buffer = NewBuffer(engine_->Bytes(primitive.scratchpad), steps_.size());
    operands.push_back({DNNL_ARG_SCRATCHPAD, primitive.scratchpad, place});
  }
  Step step;
  for (const Operand& operand : operands) {
    Touch(operand.place, steps_.size());
    memories_.emplace_back(engine_->MakeMemory(operand.layout, operand.place.constant), operand.place);
    step.arguments.push_back({operand.argument, memories_.back().first.get()});
  }
  for (const auto& [argument, memory] : primitive.constants) step.arguments.push_back({argument, memory.get()});
  step.primitive = std::move(primitive);
  steps_.push_back(std::move(step));
}

}  // namespace msserving::mindspore_session
