#include "session/libraries/acl/om_model.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace msserving::acl {
namespace {

struct ElementType {
  DataType acl;
  int32_t wire;
  size_t bytes;
};
constexpr ElementType kElementTypes[] = {
    {kBool, 1, 1},   {kInt8, 2, 1},  {kUint8, 3, 1},  {kInt16, 4, 2},    {kUint16, 5, 2}, {kInt32, 6, 4},
    {kUint32, 7, 4}, {kInt64, 8, 8}, {kUint64, 9, 8}, {kFloat16, 10, 2}, {kFloat, 11, 4}, {kDouble, 12, 8},
};

std::string OrEmpty(const char* text) { return text != nullptr ? text : ""; }

}  // namespace

std::string DimsText(const std::vector<int64_t>& dims) {
  std::string text = "[";
  for (const int64_t dim : dims) text += (text.size() > 1 ? ", " : "") + std::to_string(dim);
  return text + "]";
}

size_t OmTensor::Bytes() const {
  size_t bytes = item_bytes;
  for (const int64_t dim : dims) bytes *= static_cast<size_t>(dim);
  return bytes;
}

MsServingTensorInfo OmTensor::Info() const {
  MsServingTensorInfo info{name.c_str(), dtype, static_cast<int32_t>(dims.size()), {}};
  std::copy(dims.begin(), dims.end(), info.dims);
  return info;
}

OmModel::OmModel(const AclLibrary& acl, const std::string& file) : acl_(acl) {
  uint32_t id = 0;
  acl_.Check("aclmdlLoadFromFile", acl_->aclmdlLoadFromFile(file.c_str(), &id));
  id_ = Owned<uint32_t>(id, [&acl](uint32_t loaded) { acl.Report("aclmdlUnload", acl->aclmdlUnload(loaded)); });
  desc_ = Owned<Desc*>(acl_.Check("aclmdlCreateDesc", acl_->aclmdlCreateDesc()),
                       [&acl](Desc* made) { acl.Report("aclmdlDestroyDesc", acl->aclmdlDestroyDesc(made)); });
  acl_.Check("aclmdlGetDesc", acl_->aclmdlGetDesc(desc(), id));
  ReadBatchSizes();
  ReadInputs();
  ReadOutputs();
}

void OmModel::ReadBatchSizes() {
  const size_t count = acl_->aclmdlGetNumInputs(desc());
  for (size_t i = 0; i < count; ++i) {
    const std::string name = OrEmpty(acl_->aclmdlGetInputNameByIndex(desc(), i));
    if (name == kDynamicAippInput) {
      throw std::runtime_error(
          "the model takes its AIPP settings at run time (dynamic AIPP), which is not supported; "
          "build it with static AIPP or without");
    }
    if (name == kDynamicShapeInput) size_input_ = SizeInput{i, acl_->aclmdlGetInputSizeByIndex(desc(), i)};
  }
  if (!size_input_) return;
  Batches batches{};
  acl_.Check("aclmdlGetDynamicBatch", acl_->aclmdlGetDynamicBatch(desc(), &batches));
  if (batches.count == 0) {
    throw std::runtime_error(
        "the model was built for several image sizes or dimensions, which is not supported; build "
        "it for one shape, or for several batch sizes with atc --dynamic_batch_size");
  }
  for (size_t i = 0; i < std::min(batches.count, kMaxBatches); ++i) {
    if (batches.sizes[i] < 1 || batches.sizes[i] > INT32_MAX) {
      throw std::runtime_error("the model has the batch size " + std::to_string(batches.sizes[i]));
    }
    batch_sizes_.push_back(static_cast<int64_t>(batches.sizes[i]));
  }
  std::sort(batch_sizes_.begin(), batch_sizes_.end());
  batch_sizes_.erase(std::unique(batch_sizes_.begin(), batch_sizes_.end()), batch_sizes_.end());
}

void OmModel::ReadInputs() {
  // With static AIPP the model's input is an image: the second version describes that, the first what AIPP makes of it.
  const bool v2 = acl_->aclmdlGetInputDimsV2 != nullptr;
  const auto get_dims = v2 ? acl_->aclmdlGetInputDimsV2 : acl_->aclmdlGetInputDims;
  const size_t count = acl_->aclmdlGetNumInputs(desc());
  for (size_t i = 0; i < count; ++i) {
    if (size_input_ && size_input_->index == i) continue;
    IoDims dims{};
    acl_.Check(v2 ? "aclmdlGetInputDimsV2" : "aclmdlGetInputDims", get_dims(desc(), i, &dims));
    inputs_.push_back(Tensor("input", i, dims, acl_->aclmdlGetInputDataType(desc(), i),
                             acl_->aclmdlGetInputNameByIndex(desc(), i), acl_->aclmdlGetInputSizeByIndex(desc(), i)));
    const OmTensor& input = inputs_.back();
    if (input.Bytes() > input.capacity) {
      throw std::runtime_error("input '" + input.name + "' has the shape " + DimsText(input.dims) + " of " +
                               std::to_string(input.Bytes()) + " bytes, but the model takes " +
                               std::to_string(input.capacity));
    }
  }
  const auto is_batched = [](const OmTensor& input) { return input.batched; };
  if (size_input_ && std::none_of(inputs_.begin(), inputs_.end(), is_batched)) {
    throw std::runtime_error(
        "the model was built for several batch sizes, but none of its inputs has a dynamic "
        "leading dimension");
  }
}

void OmModel::ReadOutputs() {
  const size_t count = acl_->aclmdlGetNumOutputs(desc());
  for (size_t i = 0; i < count; ++i) {
    IoDims dims{};
    acl_.Check("aclmdlGetOutputDims", acl_->aclmdlGetOutputDims(desc(), i, &dims));
    outputs_.push_back(Tensor("output", i, dims, acl_->aclmdlGetOutputDataType(desc(), i),
                              acl_->aclmdlGetOutputNameByIndex(desc(), i),
                              acl_->aclmdlGetOutputSizeByIndex(desc(), i)));
    OmTensor& output = outputs_.back();
    output.capacity = std::max(output.capacity, output.Bytes());
  }
}

OmTensor OmModel::Tensor(const char* what, size_t index, const IoDims& dims, DataType type, const char* name,
                         size_t capacity) const {
  OmTensor tensor;
  tensor.name = OrEmpty(name);
  tensor.index = index;
  tensor.capacity = capacity;
  const std::string title = std::string(what) + " " + std::to_string(index) + " ('" + tensor.name + "')";
  const auto* found = std::find_if(std::begin(kElementTypes), std::end(kElementTypes),
                                   [type](const ElementType& known) { return known.acl == type; });
  if (found == std::end(kElementTypes)) {
    throw std::runtime_error(title + " is of AscendCL's element type " + std::to_string(type) +
                             ", which cannot be served");
  }
  tensor.dtype = found->wire;
  tensor.item_bytes = found->bytes;
  if (dims.dim_count > MS_SERVING_SESSION_MAX_RANK) {
    throw std::runtime_error(title + " has " + std::to_string(dims.dim_count) + " dimensions; at most " +
                             std::to_string(MS_SERVING_SESSION_MAX_RANK) + " can be served");
  }
  tensor.dims.assign(dims.dims, dims.dims + dims.dim_count);
  if (!batch_sizes_.empty() && !tensor.dims.empty() && tensor.dims[0] == -1) {
    tensor.batched = true;
    tensor.dims[0] = batch_sizes_.back();
  }
  if (std::any_of(tensor.dims.begin(), tensor.dims.end(), [](int64_t dim) { return dim < 0; })) {
    throw std::runtime_error(title + " has the shape " + DimsText(tensor.dims) +
                             ": dynamic dimensions other than the batch are not supported; build the model for one "
                             "shape, or for several batch sizes with atc --dynamic_batch_size");
  }
  return tensor;
}

}  // namespace msserving::acl
