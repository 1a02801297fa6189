#include "session/libraries/acl/execution.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

namespace msserving::acl {
namespace {

// In the order of the model's own inputs, of which the batch size is one.
std::vector<size_t> InputCapacities(const OmModel& model) {
  std::vector<size_t> capacities(model.inputs().size() + (model.size_input() ? 1 : 0));
  for (const OmTensor& input : model.inputs()) capacities[input.index] = input.capacity;
  if (model.size_input()) capacities[model.size_input()->index] = model.size_input()->capacity;
  return capacities;
}

std::vector<size_t> OutputCapacities(const OmModel& model) {
  std::vector<size_t> capacities;
  for (const OmTensor& output : model.outputs()) capacities.push_back(output.capacity);
  return capacities;
}

size_t RoundedUp(size_t bytes) {
  constexpr size_t kStep = MS_SERVING_SESSION_ALIGNMENT;
  return std::max<size_t>((bytes + kStep - 1) / kStep, 1) * kStep;
}

}  // namespace

Execution::Execution(const AclLibrary& acl, const OmModel& model, CopyKind to_device, CopyKind to_host)
    : acl_(acl), model_(model), to_device_(to_device), to_host_(to_host) {
  inputs_ = MakeBuffers(InputCapacities(model));
  outputs_ = MakeBuffers(OutputCapacities(model));
  for (const OmTensor& output : model.outputs()) {
    void* memory = std::aligned_alloc(MS_SERVING_SESSION_ALIGNMENT, RoundedUp(output.capacity));
    if (memory == nullptr) throw std::bad_alloc();
    host_outputs_.emplace_back(memory);
  }
  while (batch_input_ < model.inputs().size() && !model.inputs()[batch_input_].batched) ++batch_input_;
}

Execution::Buffers Execution::MakeBuffers(const std::vector<size_t>& capacities) const {
  const AclLibrary& acl = acl_;
  Buffers made;
  for (const size_t capacity : capacities) {
    const size_t bytes = std::max<size_t>(capacity, 1);
    void* memory = nullptr;
    acl.Check("aclrtMalloc", acl->aclrtMalloc(&memory, bytes, kHugeFirst));
    made.memory.emplace_back(memory, [&acl](void* given) { acl.Report("aclrtFree", acl->aclrtFree(given)); });
    made.buffers.emplace_back(
        acl.Check("aclCreateDataBuffer", acl->aclCreateDataBuffer(memory, bytes)),
        [&acl](DataBuffer* given) { acl.Report("aclDestroyDataBuffer", acl->aclDestroyDataBuffer(given)); });
  }
  made.dataset = Owned<Dataset*>(acl.Check("aclmdlCreateDataset", acl->aclmdlCreateDataset()), [&acl](Dataset* given) {
    acl.Report("aclmdlDestroyDataset", acl->aclmdlDestroyDataset(given));
  });
  for (const auto& buffer : made.buffers) {
    acl.Check("aclmdlAddDatasetBuffer", acl->aclmdlAddDatasetBuffer(made.dataset.get(), buffer.get()));
  }
  return made;
}

int64_t Execution::BatchSize(const MsServingTensor* inputs) const {
  const int64_t size = inputs[batch_input_].rank > 0 ? inputs[batch_input_].dims[0] : 0;
  const auto& sizes = model_.batch_sizes();
  if (!std::binary_search(sizes.begin(), sizes.end(), size)) {
    throw std::runtime_error("the model was not built for batch size " + std::to_string(size));
  }
  return size;
}

void Execution::Run(const MsServingTensor* inputs, MsServingTensor* outputs) {
  for (size_t i = 0; i < model_.inputs().size(); ++i) {
    const OmTensor& input = model_.inputs()[i];
    if (inputs[i].bytes > input.capacity || inputs[i].dtype != input.dtype) {
      throw std::runtime_error("input '" + input.name + "' does not fit the model");
    }
    if (inputs[i].bytes == 0) continue;
    acl_.Check("aclrtMemcpy", acl_->aclrtMemcpy(inputs_.memory[input.index].get(), input.capacity, inputs[i].data,
                                                inputs[i].bytes, to_device_));
  }
  if (model_.size_input()) {
    acl_.Check("aclmdlSetDynamicBatchSize",
               acl_->aclmdlSetDynamicBatchSize(model_.id(), inputs_.dataset.get(), model_.size_input()->index,
                                               static_cast<uint64_t>(BatchSize(inputs))));
  }
  acl_.Check("aclmdlExecute", acl_->aclmdlExecute(model_.id(), inputs_.dataset.get(), outputs_.dataset.get()));
  for (size_t i = 0; i < model_.outputs().size(); ++i) CopyOut(i, &outputs[i]);
}

void Execution::TrialRun() {
  size_t largest = 1;
  for (const OmTensor& input : model_.inputs()) largest = std::max(largest, input.Bytes());
  const std::unique_ptr<void, Free> zeros(std::aligned_alloc(MS_SERVING_SESSION_ALIGNMENT, RoundedUp(largest)));
  if (zeros == nullptr) throw std::bad_alloc();
  std::memset(zeros.get(), 0, RoundedUp(largest));
  std::vector<int64_t> sizes = model_.batch_sizes();
  if (sizes.empty()) sizes.push_back(0);  // the one that it was built for
  for (const int64_t size : sizes) {
    std::vector<MsServingTensor> inputs;
    for (const OmTensor& described : model_.inputs()) {
      MsServingTensor input{};
      input.data = zeros.get();
      input.dtype = described.dtype;
      input.rank = static_cast<int32_t>(described.dims.size());
      std::copy(described.dims.begin(), described.dims.end(), input.dims);
      input.bytes = described.Bytes();
      if (described.batched) {
        input.bytes = input.bytes / static_cast<uint64_t>(input.dims[0]) * static_cast<uint64_t>(size);
        input.dims[0] = size;
      }
      inputs.push_back(input);
    }
    std::vector<MsServingTensor> outputs(model_.outputs().size());
    try {
      Run(inputs.data(), outputs.data());
    } catch (const std::runtime_error& e) {
      throw std::runtime_error("the model was loaded, but a trial run with zeros" +
                               (size > 0 ? " in batch size " + std::to_string(size) : "") + " failed: " + e.what());
    }
  }
}

void Execution::CopyOut(size_t output, MsServingTensor* to) const {
  const OmTensor& described = model_.outputs()[output];
  to->dtype = described.dtype;
  to->rank = static_cast<int32_t>(described.dims.size());
  std::copy(described.dims.begin(), described.dims.end(), to->dims);
  to->bytes = described.Bytes();
  if (model_.size_input()) {
    IoDims dims{};
    acl_.Check("aclmdlGetCurOutputDims", acl_->aclmdlGetCurOutputDims(model_.desc(), output, &dims));
    bool fits = dims.dim_count == described.dims.size();
    to->bytes = described.item_bytes;
    for (size_t d = 0; fits && d < dims.dim_count; ++d) {
      fits = dims.dims[d] >= 0 && dims.dims[d] <= described.dims[d];
      to->dims[d] = dims.dims[d];
      to->bytes *= static_cast<uint64_t>(dims.dims[d]);
    }
    if (!fits) {
      const size_t known = std::min(dims.dim_count, kMaxDims);
      throw std::runtime_error("output '" + described.name + "' has the shape " +
                               DimsText({dims.dims, dims.dims + known}) + " in this run, at most " +
                               DimsText(described.dims) + " was announced");
    }
  }
  to->data = host_outputs_[output].get();
  if (to->bytes == 0) return;
  acl_.Check("aclrtMemcpy",
             acl_->aclrtMemcpy(to->data, described.capacity, outputs_.memory[output].get(), to->bytes, to_host_));
}

}  // namespace msserving::acl
