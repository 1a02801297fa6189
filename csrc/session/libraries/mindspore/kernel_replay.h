// Way 1: the kernels that MindSpore compiled are launched one after the other from the calling thread, with no runtime
// in between. For graphs whose shapes are all known and that have no control flow, no state and no side effects.
#pragma once

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "include/runtime/hardware_abstract/kernel_base/kernel.h"
#include "session/libraries/mindspore/buffer_plan.h"
#include "session/libraries/mindspore/compiled_graph.h"
#include "session/libraries/mindspore/types.h"

namespace msserving::mindspore_session {

class KernelReplay : public GraphRunner {
 public:
  // Throws WrongWay with the reason if the graph needs MindSpore's runtime.
  explicit KernelReplay(CompiledGraph graph);

  size_t ScratchBytes() const override { return plan_.bytes; }
  void SetScratch(void* memory) override;
  void Run(const MsServingTensor* inputs, MsServingTensor* outputs) override;

 private:
  using KernelTensor = mindspore::kernel::KernelTensor;
  using KernelTensorPtr = mindspore::kernel::KernelTensorPtr;
  using Value = std::pair<mindspore::AnfNodePtr, size_t>;  // a node of the kernel graph and which of its outputs

  static constexpr size_t kNone = SIZE_MAX;

  struct Step {
    mindspore::kernel::KernelMod* kernel;
    std::vector<KernelTensor*> inputs;
    std::vector<KernelTensor*> workspaces;
    std::vector<KernelTensor*> outputs;
  };

  // Where a tensor's bytes are: in the scratch memory (`buffer`), in an input (`input`), or in memory of a constant.
  struct Place {
    size_t buffer = kNone;
    size_t input = kNone;
    void* constant = nullptr;
  };

  struct Tensor {
    KernelTensorPtr tensor;
    Place place;
  };

  void CheckKernels() const;
  void AddParameters();
  void AddSteps();
  void AddStep(size_t index, const mindspore::CNodePtr& node);
  void AddOutputs();
  void AddOutput(const Value& value, const TensorSpec& spec);
  const Tensor& Find(const Value& value, size_t step);
  Tensor Constant(const mindspore::AnfNodePtr& node, size_t index);
  Tensor Keep(const KernelTensorPtr& like, const Place& place, size_t bytes,
              const mindspore::ValuePtr& value = nullptr);
  size_t NewBuffer(size_t bytes, size_t step);

  CompiledGraph graph_;
  std::map<Value, Tensor> tensors_;
  std::vector<Step> steps_;
  std::vector<Lifetime> lifetimes_;  // one a buffer
  BufferPlan plan_;
  std::vector<std::pair<KernelTensorPtr, size_t>> in_buffers_;  // and which buffer
  std::vector<std::vector<KernelTensor*>> of_inputs_;           // one list an input of the graph
  std::vector<mindspore::tensor::TensorPtr> constants_;         // weights and constant tensors, shared with MindSpore
  std::vector<std::vector<uint64_t>> scalars_;                  // copies of constants that are not tensors
  std::vector<std::pair<Place, MsServingTensor>> outputs_;
};

}  // namespace msserving::mindspore_session
