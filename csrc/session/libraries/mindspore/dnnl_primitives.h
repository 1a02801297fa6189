// oneDNN's primitives, their memory layouts and how they are run. Knows nothing of MindSpore.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "session/libraries/mindspore/dnnl_library.h"

namespace msserving::mindspore_session {

// A tensor's shape and layout. Null: none.
using Layout = std::shared_ptr<dnnl_memory_desc>;

// What oneDNN does to sums before it stores them. kGelu is the one by tanh.
enum class Activation { kNone, kRelu, kRelu6, kSigmoid, kTanh, kGelu };

// Of float32 tensors in NCHW order.
struct WindowSpec {
  std::vector<int64_t> source, destination;
  std::vector<int64_t> kernel, strides, dilations;  // height, width; a dilation of 1 is none
  std::vector<int64_t> before, after;               // padding
};

struct ConvolutionSpec {
  WindowSpec window;
  int64_t groups = 1;
  const float* weights = nullptr;   // [out channels, in channels / groups, height, width]
  std::vector<float> scale, shift;  // one an output channel; empty: 1, 0
  bool has_residual = false;        // a tensor of the output's shape to be added
  Activation activation = Activation::kNone;
};

// Of float32 matrices, a row an instance.
struct DenseSpec {
  int64_t rows = 0, inputs = 0, outputs = 0;
  const float* weights = nullptr;       // [inputs, outputs], kept by the caller as long as the engine lives
  bool weights_are_transposed = false;  // [outputs, inputs]
  std::vector<float> bias;              // one an output; empty: 0
  Activation activation = Activation::kNone;
};

// One made primitive. Where its operands lie is given by memories that the caller binds to it.
struct Primitive {
  std::shared_ptr<dnnl_primitive> handle;
  Layout source, destination, scratchpad, residual;                     // null where there is none
  std::vector<std::pair<int, std::shared_ptr<dnnl_memory>>> constants;  // weights and bias, ready to use
};

// oneDNN on the processor, running in the calling thread, or in that and the others of a pool. Primitives are made and
// run one at a time; it must outlive whatever it made. Functions throw std::runtime_error if oneDNN fails.
class DnnlEngine {
 public:
  // Without `threads` all runs in the calling thread. With them, `library` must have stream_create_threadpool.
  explicit DnnlEngine(const DnnlLibrary* library, std::shared_ptr<DnnlThreads> threads = nullptr);
  ~DnnlEngine();
  DnnlEngine(const DnnlEngine&) = delete;
  DnnlEngine& operator=(const DnnlEngine&) = delete;

  // Weights are put into oneDNN's layout here, once for all primitives that want the same of the same. Layouts of
  // activations are oneDNN's choice. Null if oneDNN has nothing better than its reference implementation.
  Primitive MakeConvolution(const ConvolutionSpec& spec);

  // Reads and writes plain matrices. Weights that lie as oneDNN wants them are used where they are. Null handle as
  // above.
  Primitive MakeDense(const DenseSpec& spec);

  // Keeps the layout of its source. Null handle as above.
  Primitive MakeMaxPooling(const WindowSpec& spec, const Layout& source);

  Primitive MakeReorder(const Layout& from, const Layout& to);

  // Without a value in it yet.
  std::shared_ptr<dnnl_memory> OwnMemory(const Layout& layout) const { return OwnMemory(layout, nullptr); }

  // Gives back weights that no primitive has.
  void ForgetUnusedWeights();

  bool splits_work() const { return threads_ != nullptr; }

  Layout Plain(const std::vector<int64_t>& dims) const;
  Layout ChannelsLast(const std::vector<int64_t>& image) const;
  bool Equal(const Layout& a, const Layout& b) const;
  size_t Bytes(const Layout& layout) const;

  std::shared_ptr<dnnl_memory> MakeMemory(const Layout& layout, void* data = nullptr) const;
  void* Data(const dnnl_memory* memory) const;
  void SetData(dnnl_memory* memory, void* data) const { library_->memory_set_data_handle(memory, data); }

  // False if oneDNN failed.
  bool Execute(const Primitive& primitive, const std::vector<dnnl_exec_arg_t>& arguments) const {
    return library_->primitive_execute(primitive.handle.get(), stream_, static_cast<int>(arguments.size()),
                                       arguments.data()) == dnnl_success;
  }

 private:
  struct Weights {
    const float* plain;
    std::vector<float> scale;
    Layout from, layout;
    std::shared_ptr<dnnl_memory> memory;
  };
  class Description;

  Layout Tagged(const std::vector<int64_t>& dims, dnnl_format_tag_t tag) const;
  Layout Copy(const_dnnl_memory_desc_t desc) const;
  Primitive Finish(const Description& description) const;
  std::shared_ptr<dnnl_memory> OwnMemory(const Layout& layout, const float* values) const;
  void SetPostOps(const Description& description, const Layout& residual, Activation activation) const;
  std::shared_ptr<dnnl_memory> WeightsIn(const Layout& layout, const float* weights, const Layout& from,
                                         const std::vector<float>& scale);

  int thread_count() const { return threads_ == nullptr ? 1 : threads_->get_num_threads(); }

  const DnnlLibrary* library_;
  const std::shared_ptr<DnnlThreads> threads_;  // null: the calling one alone
  dnnl_engine_t engine_ = nullptr;
  dnnl_stream_t stream_ = nullptr;
  std::list<Weights> weights_;
};

}  // namespace msserving::mindspore_session
