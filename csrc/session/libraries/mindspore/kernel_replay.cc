#include "session/libraries/mindspore/kernel_replay.h"

#include <algorithm>
#include <cstring>

#include "include/backend/common/kernel_graph/anf_runtime_algorithm.h"
#include "include/utils/anfalgo.h"
#include "utils/flags.h"

namespace msserving::mindspore_session {

namespace ms = mindspore;
using Algo = ms::common::AnfAlgo;
using RuntimeAlgo = ms::AnfAlgo;

namespace {

std::vector<std::pair<ms::AnfNodePtr, size_t>> OutputsOf(const ms::AnfNodePtr& node) {
  std::vector<std::pair<ms::AnfNodePtr, size_t>> values;
  for (const auto& value : Algo::GetAllOutputWithIndex(node)) values.emplace_back(value.first, value.second);
  return values;
}

bool HasFlag(const ms::PrimitivePtr& primitive, const char* flag) {
  const auto value = primitive->GetAttr(flag);
  return value != nullptr && value->isa<ms::BoolImm>() && ms::GetValue<bool>(value);
}

void CheckKernel(const ms::CNodePtr& node) {
  auto* kernel = RuntimeAlgo::GetKernelMod(node);
  const auto primitive = Algo::GetCNodePrimitive(node);
  if (kernel == nullptr || primitive == nullptr) throw WrongWay(node->fullname_with_scope() + " has no kernel");
  const std::string name = primitive->name();
  if (Algo::IsDynamic(node)) throw WrongWay("kernel " + name + " has a dynamic shape");
  if (kernel->IsNeedUpdateOutputShapeAndSize()) throw WrongWay("kernel " + name + " decides its output's shape");
  if (kernel->need_user_data()) throw WrongWay("kernel " + name + " needs MindSpore's runtime");
  for (const char* flag :
       {ms::GRAPH_FLAG_SIDE_EFFECT_MEM, ms::GRAPH_FLAG_SIDE_EFFECT_IO, ms::GRAPH_FLAG_SIDE_EFFECT_HIDDEN}) {
    if (HasFlag(primitive, flag)) throw WrongWay("kernel " + name + " has a side effect (" + flag + ")");
  }
  if (Algo::IsViewNode(node)) throw WrongWay("kernel " + name + " returns a view");
}

}  // namespace

KernelReplay::KernelReplay(CompiledGraph graph, std::shared_ptr<WinogradChoice> choice)
    : choice_(std::move(choice)), engine_(choice_ == nullptr ? nullptr : choice_->engine()), graph_(std::move(graph)) {
  for (const auto* specs : {&graph_.input_specs, &graph_.output_specs}) {
    for (const TensorSpec& spec : *specs) {
      if (!spec.IsStatic()) throw WrongWay("the shape of '" + spec.name + "' is dynamic");
    }
  }
  of_inputs_.resize(graph_.inputs.size());
  if (graph_.has_backend) {
    if (graph_.kernel_graph == nullptr) throw WrongWay(graph_.single_kernel_graph_problem);
    CheckKernels();
  }
  AddParameters();
  if (graph_.has_backend) AddSteps();
  AddOutputs();
  plan_ = PlanBuffers(lifetimes_, MS_SERVING_SESSION_ALIGNMENT);
}

void KernelReplay::CheckKernels() const {
  const auto& graph = graph_.kernel_graph;
  if (graph->is_dynamic_shape()) throw WrongWay("the graph has dynamic shapes");
  if (graph->is_any_type_input()) throw WrongWay("the graph has an input of any type");
  if (!graph->inline_sub_graph_kernels().empty()) throw WrongWay("the graph has control flow inside");
  if (graph->summary_node_exist()) throw WrongWay("the graph writes summaries");
  for (const auto& node : graph->execution_order()) CheckKernel(node);
}

// Inputs of the graph get their memory at every run; weights keep the memory that MindSpore gave them.
void KernelReplay::AddParameters() {
  const auto& front = graph_.graph->parameters();
  const auto nodes = graph_.has_backend ? graph_.kernel_graph->input_nodes() : front;
  for (const auto& node : nodes) {
    const auto front_node = graph_.has_backend ? graph_.kernel_graph->GetFrontAnfByBackendAnf(node) : node;
    const auto found = std::find(front.begin(), front.end(), front_node);
    if (found == front.end()) throw WrongWay("no parameter of the graph belongs to " + node->fullname_with_scope());
    const auto index = static_cast<size_t>(found - front.begin());
    Place place;
    if (index < graph_.inputs.size()) {
      place.input = index;
    } else {
      const auto parameter = (*found)->cast<ms::ParameterPtr>();
      const auto value = parameter->has_default() ? parameter->default_param()->cast<ms::tensor::TensorPtr>() : nullptr;
      if (value == nullptr) throw WrongWay("parameter " + parameter->name() + " is not a tensor");
      constants_.push_back(value->cpu());
      place.constant = constants_.back()->data_c();
    }
    if (!graph_.has_backend) {
      tensors_[{node, 0}] = {nullptr, place};
      continue;
    }
    const auto& like = RuntimeAlgo::GetOrCreateOutputKernelTensor(node, 0);
    tensors_[{node, 0}] = Keep(like, place, like->size());
  }
}

KernelReplay::Tensor KernelReplay::Keep(const KernelTensorPtr& like, const Place& place, size_t bytes,
                                        const ms::ValuePtr& value) {
  if (like->tensor_storage_info() != nullptr) throw WrongWay("a tensor is a view of another");
  auto tensor = RuntimeAlgo::CreateKernelTensor(like->GetShape(), like->GetType(), value, place.constant, bytes,
                                                like->GetStringFormat(), like->dtype_id(), like->GetShapeVector(),
                                                "CPU", like->device_id());
  if (place.buffer != kNone) in_buffers_.emplace_back(tensor, place.buffer);
  if (place.input != kNone) of_inputs_[place.input].push_back(tensor.get());
  return {std::move(tensor), place};
}

// Constants that are tensors are used where they are. What else a kernel may take as an operand (a number, a tuple, a
// string) is copied out of MindSpore's value, because a kernel may read either the value or the memory.
KernelReplay::Tensor KernelReplay::Constant(const ms::AnfNodePtr& node, size_t index) {
  const auto value_node = node->cast<ms::ValueNodePtr>();
  const auto value = value_node == nullptr ? nullptr : value_node->value();
  if (value == nullptr) throw WrongWay("nothing computes the operand " + node->DebugString());
  Place place;
  if (const auto tensor = value->cast<ms::tensor::TensorPtr>(); tensor != nullptr) {
    constants_.push_back(tensor->cpu());
    place.constant = constants_.back()->data_c();
    if (!graph_.has_backend) return {nullptr, place};
    return Keep(RuntimeAlgo::GetOrCreateOutputKernelTensor(node, index), place, constants_.back()->Size(), value);
  }
  if (!graph_.has_backend) throw WrongWay("an output is a constant that is not a tensor");
  const auto& like = RuntimeAlgo::GetOrCreateOutputKernelTensor(node, index);
  Tensor constant = Keep(like, place, like->size(), value);
  if (like->size() > 0) {
    const auto bytes = constant.tensor->GetValue<std::vector<uint8_t>>();
    if (!bytes.has_value() || bytes->size() > like->size()) {
      throw WrongWay("the constant operand " + node->DebugString() + " has no bytes");
    }
    scalars_.emplace_back((like->size() + 7) / 8);
    std::memcpy(scalars_.back().data(), bytes->data(), bytes->size());
    constant.place.constant = scalars_.back().data();
    constant.tensor->set_device_ptr(constant.place.constant);
  }
  return constant;
}

const KernelReplay::Tensor& KernelReplay::Find(const Value& value, size_t step) {
  auto found = tensors_.find(value);
  if (found == tensors_.end()) found = tensors_.emplace(value, Constant(value.first, value.second)).first;
  Touch(found->second.place, step);
  return found->second;
}

void KernelReplay::Touch(const Place& place, size_t step) {
  if (place.buffer != kNone) lifetimes_[place.buffer].last = std::max(lifetimes_[place.buffer].last, step);
}

size_t KernelReplay::NewBuffer(size_t bytes, size_t step) {
  lifetimes_.push_back({bytes, step, step});
  return lifetimes_.size() - 1;
}

void KernelReplay::AddSteps() {
  const auto& order = graph_.kernel_graph->execution_order();
  if (engine_ != nullptr) FindFused();
  for (size_t i = 0; i < order.size(); ++i) {
    if (engine_ == nullptr || !AddFusedStep(i, order[i])) AddStep(order[i]);
  }
}

void KernelReplay::AddStep(const ms::CNodePtr& node) {
  Step step;
  step.kernel = RuntimeAlgo::GetKernelMod(node);
  const size_t inputs = Algo::GetInputTensorNum(node);
  for (size_t i = 0; engine_ != nullptr && i < inputs; ++i) {
    const auto previous = Algo::GetPrevNodeOutput(node, i, false);
    MakePlain({previous.first, previous.second});
  }
  const size_t index = steps_.size();
  for (size_t i = 0; i < inputs; ++i) {
    const auto previous = Algo::GetPrevNodeOutput(node, i, false);
    step.inputs.push_back(Find({previous.first, previous.second}, index).tensor.get());
  }
  const auto& output_sizes = step.kernel->GetOutputSizeList();
  for (size_t i = 0; i < output_sizes.size(); ++i) {
    const auto& like = RuntimeAlgo::GetOrCreateOutputKernelTensor(node, i);
    Place place;
    const ms::session::AnfWithOutIndex self{node, i};
    if (graph_.kernel_graph->IsInRefOutputMap(self)) {
      // The kernel works in place: its output is the memory of one of its operands.
      const auto origin = graph_.kernel_graph->GetRefCorrespondOutput(self);
      place = Find({origin.first, origin.second}, index).place;
      if (place.buffer == kNone) throw WrongWay("kernel " + step.kernel->kernel_name() + " changes a parameter");
      if (lifetimes_[place.buffer].bytes < output_sizes[i]) throw WrongWay("a kernel grows the tensor it changes");
    } else {
      place.buffer = NewBuffer(output_sizes[i], index);
    }
    tensors_[{node, i}] = Keep(like, place, output_sizes[i]);
    step.outputs.push_back(tensors_[{node, i}].tensor.get());
  }
  for (const size_t bytes : step.kernel->GetWorkspaceSizeList()) {
    const size_t buffer = NewBuffer(bytes, index);
    const ms::ShapeVector shape{static_cast<int64_t>(bytes)};
    in_buffers_.emplace_back(RuntimeAlgo::CreateKernelTensor(nullptr, bytes, ms::Format::DEFAULT_FORMAT,
                                                             ms::kNumberTypeUInt8, shape, "CPU", 0),
                             buffer);
    step.workspaces.push_back(in_buffers_.back().first.get());
  }
  steps_.push_back(std::move(step));
}

void KernelReplay::AddOutputs() {
  const auto root = graph_.has_backend ? graph_.kernel_graph->output() : graph_.graph->output();
  const auto values = OutputsOf(root);
  if (values.size() != graph_.output_specs.size()) {
    throw WrongWay("the kernel graph has " + std::to_string(values.size()) + " outputs instead of " +
                   std::to_string(graph_.output_specs.size()));
  }
  for (size_t i = 0; i < values.size(); ++i) AddOutput(values[i], graph_.output_specs[i]);
}

void KernelReplay::AddOutput(const Value& value, const TensorSpec& spec) {
  if (engine_ != nullptr) MakePlain(value);
  const Tensor& source = Find(value, kNone);  // alive until after the last step
  const auto& tensor = source.tensor;
  if (tensor != nullptr && tensor->dtype_id() != MindSporeDType(spec.dtype)) {
    throw WrongWay("output '" + spec.name + "' is computed in another type than the graph says");
  }
  if (tensor != nullptr && tensor->size() < spec.Bytes()) {
    throw WrongWay("output '" + spec.name + "' is smaller than the graph says");
  }
  MsServingTensor output{};
  Describe(spec, &output);
  output.data = source.place.constant;
  outputs_.emplace_back(source.place, output);
}

void KernelReplay::SetScratch(void* memory) {
  scratch_ = static_cast<char*>(memory);
  const auto address = [&](size_t buffer) { return scratch_ + plan_.offsets[buffer]; };
  for (const auto& [tensor, buffer] : in_buffers_) tensor->set_device_ptr(address(buffer));
  for (const auto& [handle, place] : memories_) {
    if (place.buffer != kNone) engine_->SetData(handle.get(), address(place.buffer));
  }
  for (auto& [place, output] : outputs_) {
    if (place.buffer != kNone) output.data = address(place.buffer);
  }
}

void KernelReplay::Run(const MsServingTensor* inputs, MsServingTensor* outputs) {
  for (size_t i = 0; i < of_inputs_.size(); ++i) {
    CheckFits(graph_.input_specs[i], inputs[i], i);
    for (auto* tensor : of_inputs_[i]) tensor->set_device_ptr(inputs[i].data);
  }
  for (const auto& [handle, place] : memories_) {
    if (place.input != kNone) engine_->SetData(handle.get(), inputs[place.input].data);
  }
  for (const Step& step : steps_) {
    if (step.winograd != nullptr) {
      RunWinograd(step, inputs);
    } else if (step.kernel == nullptr) {
      if (!engine_->Execute(step.primitive, step.arguments)) throw std::runtime_error("a primitive of oneDNN failed");
    } else if (!step.kernel->Launch(step.inputs, step.workspaces, step.outputs, nullptr)) {
      throw std::runtime_error("kernel " + step.kernel->kernel_name() + " failed");
    }
  }
  for (size_t i = 0; i < outputs_.size(); ++i) {
    outputs[i] = outputs_[i].second;
    if (outputs_[i].first.input != kNone) outputs[i].data = inputs[outputs_[i].first.input].data;
  }
}

}  // namespace msserving::mindspore_session
