// Way 1: the kernels that MindSpore compiled are launched one after the other from the calling thread, with no runtime
// in between. For graphs whose shapes are all known and that have no control flow, no state and no side effects.
// Given an engine, a convolution or a dense layer and what follows it become one step that oneDNN runs, or,
// where the choice has one, Winograd's method.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "include/runtime/hardware_abstract/kernel_base/kernel.h"
#include "session/libraries/mindspore/buffer_plan.h"
#include "session/libraries/mindspore/compiled_graph.h"
#include "session/libraries/mindspore/convolution_groups.h"
#include "session/libraries/mindspore/dense_groups.h"
#include "session/libraries/mindspore/dnnl_primitives.h"
#include "session/libraries/mindspore/types.h"
#include "session/libraries/mindspore/winograd_choice.h"

namespace msserving::mindspore_session {

// How many of a graph's operators run together with what follows them.
struct FusedCounts {
  size_t convolutions = 0;
  size_t dense_layers = 0;
  size_t winograd = 0;  // of the convolutions: by Winograd's method
};

class KernelReplay : public GraphRunner {
 public:
  // Throws WrongWay with the reason if the graph needs MindSpore's runtime. Without a choice nothing is fused.
  explicit KernelReplay(CompiledGraph graph, std::shared_ptr<WinogradChoice> choice = nullptr);

  size_t ScratchBytes() const override { return plan_.bytes; }
  void SetScratch(void* memory) override;
  void Run(const MsServingTensor* inputs, MsServingTensor* outputs) override;

  const FusedCounts& fused() const { return fused_counts_; }

 private:
  using KernelTensor = mindspore::kernel::KernelTensor;
  using KernelTensorPtr = mindspore::kernel::KernelTensorPtr;
  using Value = std::pair<mindspore::AnfNodePtr, size_t>;  // a node of the kernel graph and which of its outputs

  static constexpr size_t kNone = SIZE_MAX;

  // Where a tensor's bytes are: in the scratch memory (`buffer`), in an input (`input`), or in memory of a constant.
  struct Place {
    size_t buffer = kNone;
    size_t input = kNone;
    void* constant = nullptr;
  };

  struct WinogradPlaces {
    Place source, residual, destination, scratch;
  };

  struct Step {
    mindspore::kernel::KernelMod* kernel = nullptr;  // null: oneDNN's primitive, or Winograd's method
    std::vector<KernelTensor*> inputs;
    std::vector<KernelTensor*> workspaces;
    std::vector<KernelTensor*> outputs;
    Primitive primitive;
    std::vector<dnnl_exec_arg_t> arguments;
    std::shared_ptr<const WinogradConvolution> winograd;
    WinogradPlaces places;
  };

  struct Tensor {
    KernelTensorPtr tensor;
    Place place;
  };

  // A group of nodes that runs as one primitive, or, where there is one, as `winograd` in the primitive's layouts.
  struct Fused {
    Value source, residual;
    Primitive primitive;
    std::shared_ptr<const WinogradConvolution> winograd;
    bool writes_plain = false;  // what kernels can read, perhaps in another shape than the primitive's
  };

  struct Operand {
    int argument;  // oneDNN's name for it
    Layout layout;
    Place place;
  };

  void CheckKernels() const;
  void AddParameters();
  void AddSteps();
  void AddStep(const mindspore::CNodePtr& node);
  void AddOutputs();
  void AddOutput(const Value& value, const TensorSpec& spec);
  const Tensor& Find(const Value& value, size_t step);
  Tensor Constant(const mindspore::AnfNodePtr& node, size_t index);
  Tensor Keep(const KernelTensorPtr& like, const Place& place, size_t bytes,
              const mindspore::ValuePtr& value = nullptr);
  size_t NewBuffer(size_t bytes, size_t step);
  void Touch(const Place& place, size_t step);

  // kernel_replay_fused.cc
  void FindFused();
  std::vector<GraphNode> DescribeNodes();
  NodeKind ImageKindOf(const mindspore::CNodePtr& node);
  const float* ConstantOperand(const mindspore::CNodePtr& node, size_t index);
  bool Fuse(const std::vector<size_t>& members, size_t last, const std::function<Fused()>& make);
  ConvolutionSpec SpecOf(const ConvolutionGroup& group);
  Fused MakeConvolution(const ConvolutionGroup& group);
  bool AddFusedStep(size_t index, const mindspore::CNodePtr& node);
  bool AddPooling(const mindspore::CNodePtr& node);
  Place PlaceIn(const Value& value, const Layout& layout);
  void AddPrimitive(Primitive primitive, std::vector<Operand> operands);
  void AddWinograd(const std::shared_ptr<const WinogradConvolution>& winograd, WinogradPlaces places);
  void MakePlain(const Value& value);
  void RunWinograd(const Step& step, const MsServingTensor* inputs) const;

  // kernel_replay_dense.cc
  NodeKind MatrixKindOf(const mindspore::CNodePtr& node);
  bool IsVectorFor(const mindspore::CNodePtr& node, size_t index);
  Fused MakeDense(const DenseGroup& group);

  const std::shared_ptr<WinogradChoice> choice_;  // null: nothing is fused
  const std::shared_ptr<DnnlEngine> engine_;      // the choice's
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

  std::map<size_t, Fused> fused_;                                         // by the position of the group's last node
  std::vector<bool> is_in_group_;                                         // by position: run by a primitive
  std::map<Value, std::vector<std::pair<Layout, Place>>> layouts_;        // of values that primitives read or write
  std::vector<std::pair<std::shared_ptr<dnnl_memory>, Place>> memories_;  // whose data is set later
  FusedCounts fused_counts_;
  char* scratch_ = nullptr;
};

}  // namespace msserving::mindspore_session
