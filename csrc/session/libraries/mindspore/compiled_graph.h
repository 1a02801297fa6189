// A graph that MindSpore has compiled in this process, found by the name of its phase.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "include/backend/backend_manager/backend_manager.h"
#include "include/backend/common/kernel_graph/kernel_graph.h"
#include "ir/func_graph.h"
#include "ir/tensor.h"
#include "session/libraries/mindspore/types.h"

namespace msserving::mindspore_session {

// The wire's number of a MindSpore element type. Throws std::runtime_error for one that the wire does not have.
int32_t WireDType(mindspore::TypeId type);

// The inverse, for numbers that WireDType() hands out.
mindspore::TypeId MindSporeDType(int32_t dtype);

// Read once at open(); immutable. Whoever compiled the graph (a GraphCell) must stay alive as long as this.
struct CompiledGraph {
  // Throws std::runtime_error if there is no such phase or its signature cannot be served.
  explicit CompiledGraph(const std::string& phase);

  mindspore::FuncGraphPtr graph;
  std::vector<mindspore::ParameterPtr> inputs;  // the graph's parameters that are not weights, in order
  std::vector<TensorSpec> input_specs;
  std::vector<bool> input_is_read;       // by a kernel of `kernel_graph`; all true if there is none
  std::vector<TensorSpec> output_specs;  // tuples are flattened

  // A graph that computes nothing (its outputs are inputs or constants) has no backend.
  bool has_backend = false;
  mindspore::backend::BackendType backend_type = mindspore::backend::kInvalidBackend;
  mindspore::backend::BackendGraphId backend_graph_id = 0;

  // The one graph of kernels that the backend made of it, if `single_kernel_graph_problem` is empty.
  std::shared_ptr<mindspore::session::KernelGraph> kernel_graph;
  std::string single_kernel_graph_problem;
};

}  // namespace msserving::mindspore_session
