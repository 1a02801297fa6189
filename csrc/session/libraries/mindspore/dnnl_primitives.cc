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

// oneDNN counts the elements left out.
std::vector<int64_t> LeftOut(std::vector<int64_t> dilations) {
  for (int64_t& dilation : dilations) --dilation;
  return dilations;
}

// Primitives that are made while this lives are made for one thread.
class OneThread {
 public:
  explicit OneThread(const DnnlLibrary* library) : library_(library) {
    if (library_->get_max_concurrency == nullptr || library_->get_max_concurrency(&before_) != dnnl_success) return;
    library_->set_max_concurrency(1);
  }
  ~OneThread() {
    if (before_ > 0) library_->set_max_concurrency(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

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

DnnlEngine::DnnlEngine(const DnnlLibrary* library) : library_(library) {
  Check(library_->engine_create(&engine_, dnnl_cpu, 0), "dnnl_engine_create");
  if (library_->stream_create(&stream_, engine_, dnnl_stream_default_flags) != dnnl_success) {
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
  const OneThread one_thread(library_);
  Description description(library_);
  Check(library_->reorder_primitive_desc_create(&description.handle, from.get(), engine_, to.get(), engine_,
                                                description.attributes),
        "dnnl_reorder_primitive_desc_create");
  return Finish(description);
}

Primitive DnnlEngine::MakeMaxPooling(const WindowSpec& spec, const Layout& source) {
  const OneThread one_thread(library_);
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
  const OneThread one_thread(library_);
  const WindowSpec& window = spec.window;
  Description description(library_);
  const Layout source = Tagged(window.source, dnnl_format_tag_any);
  const Layout destination = Tagged(window.destination, dnnl_format_tag_any);
  const int64_t outputs = window.destination[1];
  std::vector<int64_t> dims{outputs / spec.groups, window.source[1] / spec.groups, window.kernel[0], window.kernel[1]};
  if (spec.groups > 1) dims.insert(dims.begin(), spec.groups);
  const Layout weights = Tagged(dims, dnnl_format_tag_any);
  const Layout bias = spec.shift.empty() ? nullptr : Plain({outputs});

  dnnl_post_ops_t operations = nullptr;
  Check(library_->post_ops_create(&operations), "dnnl_post_ops_create");
  const std::unique_ptr<dnnl_post_ops, decltype(library_->post_ops_destroy)> owner(operations,
                                                                                   library_->post_ops_destroy);
  if (spec.has_residual) {
    Check(library_->post_ops_append_binary(operations, dnnl_binary_add, destination.get()), "a sum behind another");
  }
  if (spec.activation == Activation::kRelu) {
    Check(library_->post_ops_append_eltwise(operations, dnnl_eltwise_relu, 0, 0), "ReLU behind another");
  } else if (spec.activation == Activation::kRelu6) {
    Check(library_->post_ops_append_eltwise(operations, dnnl_eltwise_clip, 0, 6), "ReLU6 behind another");
  }
  Check(library_->primitive_attr_set_post_ops(description.attributes, operations), "dnnl_primitive_attr_set_post_ops");
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
  primitive.constants.emplace_back(DNNL_ARG_WEIGHTS,
                                   WeightsIn(Copy(description.Query(dnnl_query_weights_md, 0)), spec, dims));
  if (bias != nullptr) primitive.constants.emplace_back(DNNL_ARG_BIAS, OwnMemory(bias, spec.shift.data()));
  return primitive;
}

void DnnlEngine::ForgetUnusedWeights() {
  weights_.remove_if([](const Weights& kept) { return kept.memory.use_count() == 1; });
}

std::shared_ptr<dnnl_memory> DnnlEngine::WeightsIn(const Layout& layout, const ConvolutionSpec& spec,
                                                   const std::vector<int64_t>& dims) {
  for (const Weights& kept : weights_) {
    if (kept.plain == spec.weights && kept.scale == spec.scale && Equal(kept.layout, layout)) return kept.memory;
  }
  size_t count = 1;
  for (const int64_t dim : dims) count *= static_cast<size_t>(dim);
  std::vector<float> folded(spec.weights, spec.weights + count);
  const size_t each = spec.scale.empty() ? 0 : count / spec.scale.size();
  for (size_t i = 0; each > 0 && i < count; ++i) folded[i] *= spec.scale[i / each];
  const Layout plain = Plain(dims);
  const auto from = MakeMemory(plain, folded.data());
  auto to = OwnMemory(layout);
  const Primitive reorder = MakeReorder(plain, layout);
  std::vector<dnnl_exec_arg_t> arguments{{DNNL_ARG_FROM, from.get()}, {DNNL_ARG_TO, to.get()}};
  std::shared_ptr<dnnl_memory> scratchpad;
  if (reorder.scratchpad != nullptr) {
    scratchpad = OwnMemory(reorder.scratchpad);
    arguments.push_back({DNNL_ARG_SCRATCHPAD, scratchpad.get()});
  }
  if (!Execute(reorder, arguments)) throw std::runtime_error("oneDNN: weights cannot be put into its layout");
  weights_.push_back({spec.weights, spec.scale, layout, to});
  return to;
}

}  // namespace msserving::mindspore_session
