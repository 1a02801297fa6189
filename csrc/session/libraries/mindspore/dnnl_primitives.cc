#include "session/libraries/mindspore/dnnl_primitives.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "session/libraries/mindspore/weight_memory.h"

namespace msserving::mindspore_session {
namespace {

void Check(dnnl_status_t status, const char* what) {
  if (status != dnnl_success) {
    throw std::runtime_error(std::string("oneDNN: ") + what + " failed with status " + std::to_string(status));
  }
}

struct Dims {
  explicit Dims(const std::vector<int64_t>& values) : rank(static_cast<int>(values.size())) {
    if (values.size() > DNNL_MAX_NDIMS) throw std::runtime_error("oneDNN: too many dimensions");
    std::copy(values.begin(), values.end(), dims);
  }
  int rank;
  dnnl_dims_t dims{};
};

// Asked for the weights' layout, oneDNN wants an input's weights side by side for more rows than one. Measured with
// AVX-512, an output's weights side by side are faster by a tenth to a half for two rows, and for up to eight if there
// are hardly any outputs.
bool PrefersRows(const DenseSpec& spec) {
  constexpr int64_t kFewRows = 8;
  constexpr int64_t kFewOutputs = 16;
  return spec.rows == 2 || (spec.rows > 2 && spec.rows <= kFewRows && spec.outputs <= kFewOutputs);
}

// oneDNN counts the elements left out.
std::vector<int64_t> LeftOut(std::vector<int64_t> dilations) {
  for (int64_t& dilation : dilations) --dilation;
  return dilations;
}

// Primitives that are made while this lives are made for so many threads.
class ForThreads {
 public:
  ForThreads(const DnnlLibrary* library, int threads) : library_(library) {
    if (library_->get_max_concurrency == nullptr || library_->get_max_concurrency(&before_) != dnnl_success) return;
    library_->set_max_concurrency(threads);
  }
  ~ForThreads() {
    if (before_ > 0) library_->set_max_concurrency(before_);
  }
  ForThreads(const ForThreads&) = delete;
  ForThreads& operator=(const ForThreads&) = delete;

 private:
  const DnnlLibrary* library_;
  int before_ = 0;
};

}  // namespace

// A primitive's description and attributes while it is being made.
class DnnlEngine::Description {
 public:
  explicit Description(const DnnlLibrary* library) : library(library) {
    Check(library->primitive_attr_create(&attributes), "dnnl_primitive_attr_create");
    library->primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
  }
  ~Description() {
    if (handle != nullptr) library->primitive_desc_destroy(handle);
    library->primitive_attr_destroy(attributes);
  }
  Description(const Description&) = delete;
  Description& operator=(const Description&) = delete;

  const_dnnl_memory_desc_t Query(dnnl_query_t what, int index = 0) const {
    return library->primitive_desc_query_md(handle, what, index);
  }

  bool IsReference() const {
    const char* name = "";
    library->primitive_desc_query(handle, dnnl_query_impl_info_str, 0, &name);
    return std::strstr(name, "ref") != nullptr;
  }

  const DnnlLibrary* const library;
  dnnl_primitive_attr_t attributes = nullptr;
  dnnl_primitive_desc_t handle = nullptr;
};

DnnlEngine::DnnlEngine(const DnnlLibrary* library, std::shared_ptr<DnnlThreads> threads)
    : library_(library), threads_(std::move(threads)) {
  Check(library_->engine_create(&engine_, dnnl_cpu, 0), "dnnl_engine_create");
  const auto status = threads_ == nullptr ? library_->stream_create(&stream_, engine_, dnnl_stream_default_flags)
                                          : library_->stream_create_threadpool(&stream_, engine_, threads_.get());
  if (status != dnnl_success) {
    library_->engine_destroy(engine_);
    throw std::runtime_error("oneDNN: dnnl_stream_create failed");
  }
}

DnnlEngine::~DnnlEngine() {
  weights_.clear();
  library_->stream_destroy(stream_);
  library_->engine_destroy(engine_);
}

Layout DnnlEngine::Tagged(const std::vector<int64_t>& dims, dnnl_format_tag_t tag) const {
  const Dims shape(dims);
  dnnl_memory_desc_t desc = nullptr;
  Check(library_->memory_desc_create_with_tag(&desc, shape.rank, shape.dims, dnnl_f32, tag),
        "dnnl_memory_desc_create_with_tag");
  return Layout(desc, library_->memory_desc_destroy);
}

Layout DnnlEngine::Plain(const std::vector<int64_t>& dims) const {
  constexpr dnnl_format_tag_t kTags[] = {dnnl_a, dnnl_ab, dnnl_abc, dnnl_abcd, dnnl_abcde};
  if (dims.empty() || dims.size() > std::size(kTags)) throw std::runtime_error("oneDNN: no plain layout of this rank");
  return Tagged(dims, kTags[dims.size() - 1]);
}

Layout DnnlEngine::ChannelsLast(const std::vector<int64_t>& image) const { return Tagged(image, dnnl_acdb); }

Layout DnnlEngine::Copy(const_dnnl_memory_desc_t desc) const {
  if (desc == nullptr || library_->memory_desc_get_size(desc) == 0) return nullptr;
  dnnl_memory_desc_t copy = nullptr;
  Check(library_->memory_desc_clone(&copy, desc), "dnnl_memory_desc_clone");
  return Layout(copy, library_->memory_desc_destroy);
}

bool DnnlEngine::Equal(const Layout& a, const Layout& b) const {
  return library_->memory_desc_equal(a.get(), b.get()) != 0;
}

size_t DnnlEngine::Bytes(const Layout& layout) const { return library_->memory_desc_get_size(layout.get()); }

std::shared_ptr<dnnl_memory> DnnlEngine::MakeMemory(const Layout& layout, void* data) const {
  dnnl_memory_t memory = nullptr;
  Check(library_->memory_create(&memory, layout.get(), engine_, data), "dnnl_memory_create");
  return std::shared_ptr<dnnl_memory>(memory, library_->memory_destroy);
}

std::shared_ptr<dnnl_memory> DnnlEngine::OwnMemory(const Layout& layout, const float* values) const {
  std::shared_ptr<void> block = AllocateWeights(Bytes(layout));
  if (values != nullptr) std::memcpy(block.get(), values, Bytes(layout));
  auto memory = MakeMemory(layout, block.get());
  auto* handle = memory.get();
  return std::shared_ptr<dnnl_memory>(handle, [memory = std::move(memory), block = std::move(block)](void*) {});
}

void* DnnlEngine::Data(const dnnl_memory* memory) const {
  void* data = nullptr;
  Check(library_->memory_get_data_handle(memory, &data), "dnnl_memory_get_data_handle");
  return data;
}

Primitive DnnlEngine::Finish(const Description& description) const {
  Primitive primitive;
  dnnl_primitive_t handle = nullptr;
  Check(library_->primitive_create(&handle, description.handle), "dnnl_primitive_create");
  primitive.handle = std::shared_ptr<dnnl_primitive>(handle, library_->primitive_destroy);
  primitive.source = Copy(description.Query(dnnl_query_src_md));
  primitive.destination = Copy(description.Query(dnnl_query_dst_md));
  primitive.scratchpad = Copy(description.Query(dnnl_query_scratchpad_md));
  return primitive;
}

Primitive DnnlEngine::MakeReorder(const Layout& from, const Layout& to) {
  const ForThreads for_threads(library_, thread_count());
  Description description(library_);
  Check(library_->reorder_primitive_desc_create(&description.handle, from.get(), engine_, to.get(), engine_,
                                                description.attributes),
        "dnnl_reorder_primitive_desc_create");
  return Finish(description);
}

Primitive DnnlEngine::MakeMaxPooling(const WindowSpec& spec, const Layout& source) {
  const ForThreads for_threads(library_, thread_count());
  Description description(library_);
  const Layout destination = Tagged(spec.destination, dnnl_format_tag_any);
  const auto status = library_->pooling_forward_primitive_desc_create(
      &description.handle, engine_, dnnl_forward_inference, dnnl_pooling_max, source.get(), destination.get(),
      Dims(spec.strides).dims, Dims(spec.kernel).dims, Dims(LeftOut(spec.dilations)).dims, Dims(spec.before).dims,
      Dims(spec.after).dims, description.attributes);
  if (status != dnnl_success || description.IsReference()) return {};
  return Finish(description);
}

Primitive DnnlEngine::MakeConvolution(const ConvolutionSpec& spec) {
  const ForThreads for_threads(library_, thread_count());
  const WindowSpec& window = spec.window;
  Description description(library_);
  const Layout source = Tagged(window.source, dnnl_format_tag_any);
  const Layout destination = Tagged(window.destination, dnnl_format_tag_any);
  const int64_t outputs = window.destination[1];
  std::vector<int64_t> dims{outputs / spec.groups, window.source[1] / spec.groups, window.kernel[0], window.kernel[1]};
  if (spec.groups > 1) dims.insert(dims.begin(), spec.groups);
  const Layout weights = Tagged(dims, dnnl_format_tag_any);
  const Layout bias = spec.shift.empty() ? nullptr : Plain({outputs});

  SetPostOps(description, spec.has_residual ? destination : nullptr, spec.activation);
  const auto status = library_->convolution_forward_primitive_desc_create(
      &description.handle, engine_, dnnl_forward_inference, dnnl_convolution_direct, source.get(), weights.get(),
      bias.get(), destination.get(), Dims(window.strides).dims, Dims(LeftOut(window.dilations)).dims,
      Dims(window.before).dims, Dims(window.after).dims, description.attributes);
  if (status != dnnl_success || description.IsReference()) return {};
  Primitive primitive = Finish(description);
  if (spec.has_residual) {
    primitive.residual =
        Copy(description.Query(dnnl_query_exec_arg_md, DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1));
    if (primitive.residual == nullptr) return {};
  }
  primitive.constants.emplace_back(DNNL_ARG_WEIGHTS, WeightsIn(Copy(description.Query(dnnl_query_weights_md, 0)),
                                                               spec.weights, Plain(dims), spec.scale));
  if (bias != nullptr) primitive.constants.emplace_back(DNNL_ARG_BIAS, OwnMemory(bias, spec.shift.data()));
  return primitive;
}

Primitive DnnlEngine::MakeDense(const DenseSpec& spec) {
  const ForThreads for_threads(library_, thread_count());
  Description description(library_);
  const std::vector<int64_t> dims{spec.outputs, spec.inputs};
  const Layout source = Plain({spec.rows, spec.inputs});
  const Layout destination = Plain({spec.rows, spec.outputs});
  const Layout weights = Tagged(dims, PrefersRows(spec) ? dnnl_ab : dnnl_format_tag_any);
  const Layout bias = spec.bias.empty() ? nullptr : Plain({spec.outputs});
  SetPostOps(description, nullptr, spec.activation);
  const auto status = library_->inner_product_forward_primitive_desc_create(
      &description.handle, engine_, dnnl_forward_inference, source.get(), weights.get(), bias.get(), destination.get(),
      description.attributes);
  if (status != dnnl_success || description.IsReference()) return {};
  Primitive primitive = Finish(description);
  const Layout given = Tagged(dims, spec.weights_are_transposed ? dnnl_ab : dnnl_ba);
  const Layout wanted = Copy(description.Query(dnnl_query_weights_md, 0));
  primitive.constants.emplace_back(DNNL_ARG_WEIGHTS, Equal(given, wanted)
                                                         ? MakeMemory(given, const_cast<float*>(spec.weights))
                                                         : WeightsIn(wanted, spec.weights, given, {}));
  if (bias != nullptr) primitive.constants.emplace_back(DNNL_ARG_BIAS, OwnMemory(bias, spec.bias.data()));
  return primitive;
}

void DnnlEngine::SetPostOps(const Description& description, const Layout& residual, Activation activation) const {
  dnnl_post_ops_t operations = nullptr;
  Check(library_->post_ops_create(&operations), "dnnl_post_ops_create");
  const std::unique_ptr<dnnl_post_ops, decltype(library_->post_ops_destroy)> owner(operations,
                                                                                   library_->post_ops_destroy);
  if (residual != nullptr) {
    Check(library_->post_ops_append_binary(operations, dnnl_binary_add, residual.get()), "a sum behind another");
  }
  const auto append = [&](dnnl_alg_kind_t function, float alpha, float beta) {
    Check(library_->post_ops_append_eltwise(operations, function, alpha, beta), "an activation behind another");
  };
  switch (activation) {
    case Activation::kNone: break;
    case Activation::kRelu: append(dnnl_eltwise_relu, 0, 0); break;
    case Activation::kRelu6: append(dnnl_eltwise_clip, 0, 6); break;
    case Activation::kSigmoid: append(dnnl_eltwise_logistic, 0, 0); break;
    case Activation::kTanh: append(dnnl_eltwise_tanh, 0, 0); break;
    case Activation::kGelu: append(dnnl_eltwise_gelu_tanh, 0, 0); break;
  }
  Check(library_->primitive_attr_set_post_ops(description.attributes, operations), "dnnl_primitive_attr_set_post_ops");
}

void DnnlEngine::ForgetUnusedWeights() {
  weights_.remove_if([](const Weights& kept) { return kept.memory.use_count() == 1; });
}

std::shared_ptr<dnnl_memory> DnnlEngine::WeightsIn(const Layout& layout, const float* weights, const Layout& from,
                                                   const std::vector<float>& scale) {
  for (const Weights& kept : weights_) {
    if (kept.plain == weights && kept.scale == scale && Equal(kept.from, from) && Equal(kept.layout, layout)) {
      return kept.memory;
    }
  }
  std::vector<float> folded;
  if (!scale.empty()) {
    const size_t count = Bytes(from) / sizeof(float);
    const size_t each = count / scale.size();
    folded.assign(weights, weights + count);
    for (size_t i = 0; i < count; ++i) folded[i] *= scale[i / each];
  }
  const auto source = MakeMemory(from, scale.empty() ? const_cast<float*>(weights) : folded.data());
  auto to = OwnMemory(layout);
  const Primitive reorder = MakeReorder(from, layout);
  std::vector<dnnl_exec_arg_t> arguments{{DNNL_ARG_FROM, source.get()}, {DNNL_ARG_TO, to.get()}};
  std::shared_ptr<dnnl_memory> scratchpad;
  if (reorder.scratchpad != nullptr) {
    scratchpad = OwnMemory(reorder.scratchpad);
    arguments.push_back({DNNL_ARG_SCRATCHPAD, scratchpad.get()});
  }
  if (!Execute(reorder, arguments)) throw std::runtime_error("oneDNN: weights cannot be put into its layout");
  weights_.push_back({weights, scale, from, layout, to});
  return to;
}

}  // namespace msserving::mindspore_session
