#include "session/libraries/mindspore/compiled_graph.h"

#include <algorithm>
#include <map>

#include "abstract/abstract_value.h"
#include "backend/ms_backend/ms_backend_base.h"
#include "backend/ms_backend/runtime/graph_scheduler/base/graph_compiler.h"
#include "include/frontend/jit/ps/executor/graph_executor_py.h"
#include "include/utils/anfalgo.h"

namespace msserving::mindspore_session {
namespace {

namespace ms = mindspore;

// Three members that MindSpore keeps to itself and that nothing public leads to. The first two are protected; for the
// private one: an explicit instantiation may name it, and hands its address to a friend.
struct ExecutorAccess : ms::pipeline::ExecutorPy {
  static auto Graphs() { return &ExecutorAccess::info_; }
};

struct BackendAccess : ms::backend::ms_backend::MSBackendBase {
  static auto CompilerInfos() { return &BackendAccess::actor_to_graph_compiler_info_; }
};

using Backends = ms::backend::BackendBasePtr (ms::backend::BackendManager::*)[ms::backend::kInvalidBackend];
Backends BackendsMember();

template <Backends member>
struct Reveal {
  friend Backends BackendsMember() { return member; }
};
template struct Reveal<&ms::backend::BackendManager::backends_>;

ms::pipeline::ExecutorInfoPtr FindPhase(const std::string& phase) {
  const auto executor = ms::pipeline::GraphExecutorPy::GetInstance();
  const auto& graphs = (*executor).*ExecutorAccess::Graphs();
  const auto found = graphs.find(phase);
  if (found == graphs.end() || found->second == nullptr || found->second->func_graph == nullptr ||
      found->second->resource == nullptr) {
    throw std::runtime_error("MindSpore has compiled no graph '" + phase + "' in this process");
  }
  return found->second;
}

TensorSpec SpecOf(const ms::abstract::AbstractBasePtr& abstract, const std::string& name) {
  TensorSpec spec;
  spec.name = name;
  if (abstract->isa<ms::abstract::AbstractScalar>()) {
    spec.dtype = WireDType(abstract->BuildType()->type_id());
    return spec;
  }
  if (!abstract->isa<ms::abstract::AbstractTensor>()) {
    throw std::runtime_error("'" + name + "' is neither a tensor nor a number, but " + abstract->ToString());
  }
  const auto type = abstract->BuildType()->cast<ms::TensorTypePtr>();
  const auto shape = abstract->BuildShape()->cast<ms::abstract::ShapePtr>();
  if (type == nullptr || type->element() == nullptr || shape == nullptr) {
    throw std::runtime_error("'" + name + "' has no tensor type: " + abstract->ToString());
  }
  spec.dtype = WireDType(type->element()->type_id());
  spec.dynamic_rank = ms::IsDynamicRank(shape->shape());
  if (!spec.dynamic_rank) spec.dims.assign(shape->shape().begin(), shape->shape().end());
  for (int64_t& dim : spec.dims) dim = dim < 0 ? -1 : dim;
  return spec;
}

void AddOutputs(const ms::abstract::AbstractBasePtr& abstract, std::vector<TensorSpec>* specs) {
  if (abstract == nullptr) throw std::runtime_error("the graph's output has no type");
  const auto sequence = abstract->cast<ms::abstract::AbstractSequencePtr>();
  if (sequence == nullptr) {
    specs->push_back(SpecOf(abstract, "output" + std::to_string(specs->size())));
    return;
  }
  if (sequence->dynamic_len()) throw std::runtime_error("an output is a tuple whose length is not known beforehand");
  for (const auto& element : sequence->elements()) AddOutputs(element, specs);
}

std::shared_ptr<ms::runtime::GraphCompilerInfo> CompilerInfo(const CompiledGraph& graph) {
  if (graph.backend_type != ms::backend::kMSBackend) return nullptr;
  auto& manager = ms::backend::BackendManager::GetInstance();
  // Not dynamic_cast: MindSpore does not export the class's type information. The type of backend vouches for it.
  auto* backend =
      static_cast<ms::backend::ms_backend::MSBackendBase*>((manager.*BackendsMember())[graph.backend_type].get());
  if (backend == nullptr) return nullptr;
  const auto& infos = backend->*BackendAccess::CompilerInfos();
  const auto found = infos.find(graph.backend_graph_id);
  return found == infos.end() ? nullptr : found->second;
}

void FindKernelGraph(CompiledGraph* graph) {
  const auto info = CompilerInfo(*graph);
  if (info == nullptr) {
    graph->single_kernel_graph_problem = "the graph was not compiled by MindSpore's own backend";
  } else if (info->graphs_.size() != 1 || info->control_nodes_.size() > 1) {
    graph->single_kernel_graph_problem = "the graph has control flow (" + std::to_string(info->graphs_.size()) +
                                         " kernel graphs, " + std::to_string(info->control_nodes_.size()) +
                                         " control nodes)";
  } else {
    graph->kernel_graph = info->graphs_[0];
  }
}

// The loaded graph is shared by all phases that were compiled from it, and says the shapes of the latest. The kernel
// graph is the phase's own. An input that no kernel reads is not in it.
void TakeSpecsOfKernelGraph(CompiledGraph* graph) {
  const auto& front = graph->graph->parameters();
  graph->input_is_read.assign(graph->inputs.size(), false);
  for (const auto& node : graph->kernel_graph->input_nodes()) {
    const auto found = std::find(front.begin(), front.end(), graph->kernel_graph->GetFrontAnfByBackendAnf(node));
    const auto index = static_cast<size_t>(found - front.begin());
    if (index >= graph->inputs.size() || node->abstract() == nullptr) continue;
    graph->input_is_read[index] = true;
    graph->input_specs[index] = SpecOf(node->abstract(), graph->input_specs[index].name);
  }
  const auto outputs = ms::common::AnfAlgo::GetAllOutputWithIndex(graph->kernel_graph->output());
  if (outputs.size() != graph->output_specs.size()) return;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const auto shape = ms::common::AnfAlgo::GetOutputInferShape(outputs[i].first, outputs[i].second);
    TensorSpec& spec = graph->output_specs[i];
    if (spec.dynamic_rank || shape.size() != spec.dims.size()) continue;
    std::transform(shape.begin(), shape.end(), spec.dims.begin(), [](int64_t dim) { return dim < 0 ? -1 : dim; });
  }
}

const std::map<ms::TypeId, int32_t>& DTypes() {
  static const std::map<ms::TypeId, int32_t> types = {
      {ms::kNumberTypeBool, 1},     {ms::kNumberTypeInt8, 2},     {ms::kNumberTypeUInt8, 3},
      {ms::kNumberTypeInt16, 4},    {ms::kNumberTypeUInt16, 5},   {ms::kNumberTypeInt32, 6},
      {ms::kNumberTypeUInt32, 7},   {ms::kNumberTypeInt64, 8},    {ms::kNumberTypeUInt64, 9},
      {ms::kNumberTypeFloat16, 10}, {ms::kNumberTypeFloat32, 11}, {ms::kNumberTypeFloat64, 12}};
  return types;
}

}  // namespace

int32_t WireDType(ms::TypeId type) {
  const auto found = DTypes().find(type);
  if (found == DTypes().end()) {
    throw std::runtime_error("elements of type " + ms::TypeIdToString(type) + " cannot be served");
  }
  return found->second;
}

ms::TypeId MindSporeDType(int32_t dtype) {
  for (const auto& [type, number] : DTypes()) {
    if (number == dtype) return type;
  }
  return ms::kTypeUnknown;
}

CompiledGraph::CompiledGraph(const std::string& phase) {
  const auto info = FindPhase(phase);
  graph = info->func_graph;
  const auto& parameters = graph->parameters();
  if (parameters.size() < info->arg_list_size) throw std::runtime_error("MindSpore dropped an input of the graph");
  for (size_t i = 0; i < info->arg_list_size; ++i) {
    auto parameter = parameters[i]->cast<ms::ParameterPtr>();
    if (parameter == nullptr || parameter->abstract() == nullptr) throw std::runtime_error("an input has no type");
    input_specs.push_back(SpecOf(parameter->abstract(), parameter->name()));
    inputs.push_back(std::move(parameter));
  }
  input_is_read.assign(inputs.size(), true);
  AddOutputs(graph->output()->abstract(), &output_specs);

  has_backend = info->resource->HasResult("backend_output");
  if (!has_backend) return;
  backend_type = info->resource->GetResult("backend_type").cast<ms::backend::BackendType>();
  backend_graph_id = info->resource->GetResult("backend_output").cast<ms::backend::BackendGraphId>();
  FindKernelGraph(this);
  if (kernel_graph != nullptr) TakeSpecsOfKernelGraph(this);
}

}  // namespace msserving::mindspore_session
