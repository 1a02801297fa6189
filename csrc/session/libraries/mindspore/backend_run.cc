#include "session/libraries/mindspore/backend_run.h"

#include <utility>

#include "include/utils/convert_utils.h"
#include "ir/value.h"

namespace msserving::mindspore_session {

namespace ms = mindspore;

BackendRun::BackendRun(CompiledGraph graph) : graph_(std::move(graph)) {
  if (!graph_.has_backend) throw WrongWay("the graph computes nothing, so that MindSpore made no backend graph of it");
  CollectWeights();
}

// The backend wants the weights behind the inputs, in the order of the graph's parameters.
void BackendRun::CollectWeights() {
  const auto& parameters = graph_.graph->parameters();
  for (size_t i = graph_.inputs.size(); i < parameters.size(); ++i) {
    const auto parameter = parameters[i]->cast<ms::ParameterPtr>();
    if (parameter == nullptr || !parameter->has_default()) {
      throw std::runtime_error("parameter " + parameters[i]->ToString() + " has no value");
    }
    weights_.push_back(parameter->default_param());
  }
}

void BackendRun::CollectOutputs(const ms::BaseRef& value) {
  if (ms::utils::isa<ms::VectorRef>(value)) {
    for (const auto& element : ms::utils::cast<ms::VectorRef>(value)) CollectOutputs(element);
  } else if (ms::utils::isa<ms::tensor::TensorPtr>(value)) {
    // cpu() waits until the tensor's data is there.
    results_.push_back(ms::utils::cast<ms::tensor::TensorPtr>(value)->cpu());
  } else if (ms::utils::isa<ms::ValueSequencePtr>(value)) {
    for (const auto& element : ms::utils::cast<ms::ValueSequencePtr>(value)->value()) CollectOutputs(element);
  } else if (ms::utils::isa<ms::ScalarPtr>(value)) {
    results_.push_back(ms::ScalarToTensor(ms::utils::cast<ms::ScalarPtr>(value))->cpu());
  } else {
    throw std::runtime_error("MindSpore returned something that is not a tensor: " + value.ToString());
  }
}

void BackendRun::Emit(size_t index, MsServingTensor* output) const {
  const auto& result = results_[index];
  TensorSpec spec;
  spec.dtype = WireDType(result->data_type());
  spec.dims.assign(result->shape().begin(), result->shape().end());
  if (spec.dtype != graph_.output_specs[index].dtype) {
    throw std::runtime_error("output " + std::to_string(index) + " is of " + spec.ToString() + " instead of " +
                             graph_.output_specs[index].ToString());
  }
  if (spec.dims.size() > MS_SERVING_SESSION_MAX_RANK) {
    throw std::runtime_error("output " + std::to_string(index) + " has too many dimensions");
  }
  Describe(spec, output);
  output->data = result->data_c();
}

void BackendRun::Run(const MsServingTensor* inputs, MsServingTensor* outputs) {
  ms::VectorRef arguments;
  for (size_t i = 0; i < graph_.inputs.size(); ++i) {
    CheckFits(graph_.input_specs[i], inputs[i], i);
    const ms::ShapeVector shape(inputs[i].dims, inputs[i].dims + inputs[i].rank);
    // The tensor refers to the caller's memory: nothing is copied, and no run outlives this call.
    arguments.push_back(
        std::make_shared<ms::tensor::Tensor>(MindSporeDType(inputs[i].dtype), shape, true, inputs[i].data));
  }
  for (const auto& weight : weights_) arguments.push_back(weight);
  results_.clear();
  ms::VectorRef returned;
  is_spoilt_ = true;
  ms::backend::BackendManager::GetInstance().Run(graph_.backend_type, graph_.backend_graph_id, arguments, &returned);
  is_spoilt_ = false;
  CollectOutputs(returned);
  if (results_.size() != graph_.output_specs.size()) {
    throw std::runtime_error("MindSpore returned " + std::to_string(results_.size()) + " tensors instead of " +
                             std::to_string(graph_.output_specs.size()));
  }
  for (size_t i = 0; i < results_.size(); ++i) Emit(i, &outputs[i]);
}

}  // namespace msserving::mindspore_session
