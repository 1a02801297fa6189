#include "tensor/exchange.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

namespace msserving {
namespace {

constexpr uint64_t AlignUp(uint64_t offset) {
  return (offset + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
}

Status Broken(const char* what) {
  return Status(ErrorKind::kInternal, std::string("a block in shared memory is damaged: ") + what);
}

bool Inside(uint64_t offset, uint64_t bytes, uint64_t begin, uint64_t end) {
  return offset >= begin && offset <= end && bytes <= end - offset;
}

Status CheckTensor(const TensorRecord& tensor, uint64_t begin, uint64_t end) {
  if (!IsValid(tensor.dtype)) {
    return Broken("element type");
  }
  if (tensor.rank > kMaxRank) {
    return Broken("rank");
  }
  if (!Inside(tensor.offset, tensor.bytes, begin, end)) {
    return Broken("tensor bytes");
  }
  const auto dtype = static_cast<DataType>(tensor.dtype);
  const int64_t count = ElementCount({tensor.dims, tensor.rank});
  if (count < 0) {
    return Broken("dimensions");
  }
  uint64_t bytes = 0;
  if (!IsText(dtype) &&
      (__builtin_mul_overflow(static_cast<uint64_t>(count), ItemSize(dtype), &bytes) || bytes != tensor.bytes)) {
    return Broken("tensor size");
  }
  return Status::Ok();
}

// The block's head and that it lies in the slab; the records behind the head are checked by the callers.
template <typename Record>
bool HeadFits(uint64_t slab_bytes, uint64_t offset, uint64_t bytes) {
  return offset % kTensorAlignment == 0 && Inside(offset, bytes, 0, slab_bytes) && bytes >= sizeof(Record);
}

}  // namespace

Status MapControlMemory(UniqueFd fd, SharedMemory* memory) {
  if (Status status = SharedMemory::Map(std::move(fd), memory); !status.ok()) {
    return status;
  }
  if (memory->size() < ChannelLayout::kBytes) {
    return Status(ErrorKind::kInternal, "control memory of " + std::to_string(memory->size()) + " bytes, " +
                                            std::to_string(ChannelLayout::kBytes) + " are needed");
  }
  return Status::Ok();
}

uint64_t RequestBlockBytes(std::span<const TensorView> tensors) {
  uint64_t bytes = AlignUp(sizeof(RequestRecord) + tensors.size() * sizeof(TensorRecord));
  for (const TensorView& tensor : tensors) {
    if (tensor.bytes > (uint64_t{1} << 62) - bytes) {
      return 0;
    }
    bytes = AlignUp(bytes + tensor.bytes);
  }
  return bytes;
}

void WriteRequestBlock(uint8_t* slab, uint64_t offset, uint64_t request, int64_t deadline_ns, uint32_t method,
                       uint32_t instances, uint32_t inputs, std::span<const TensorView> tensors) {
  auto* record = reinterpret_cast<RequestRecord*>(slab + offset);
  record->request = request;
  record->deadline_ns = deadline_ns;
  record->timeout_ns = 0;
  record->method = method;
  record->instances = instances;
  record->inputs = inputs;
  record->cancelled.store(0, std::memory_order_relaxed);
  record->touched.store(0, std::memory_order_relaxed);
  record->mark = {};
  uint64_t at = offset + AlignUp(sizeof(RequestRecord) + tensors.size() * sizeof(TensorRecord));
  TensorRecord* out = record->tensors();
  for (const TensorView& tensor : tensors) {
    out->offset = at;
    out->bytes = tensor.bytes;
    out->dtype = static_cast<uint8_t>(tensor.dtype);
    out->rank = tensor.rank;
    out->mark = {};
    for (int i = 0; i < tensor.rank; ++i) {
      out->dims[i] = tensor.dims[i];
    }
    if (tensor.bytes > 0) {
      std::memcpy(slab + at, tensor.data, tensor.bytes);
    }
    at = AlignUp(at + tensor.bytes);
    ++out;
  }
}

Status ReadRequestBlock(uint8_t* slab, uint64_t slab_bytes, uint64_t offset, uint64_t bytes, RequestRecord** record) {
  if (!HeadFits<RequestRecord>(slab_bytes, offset, bytes)) {
    return Broken("request block");
  }
  auto* found = reinterpret_cast<RequestRecord*>(slab + offset);
  const uint32_t instances = found->instances;
  const uint64_t tensors = uint64_t{instances} * found->inputs;
  if (instances == 0 || tensors > (bytes - sizeof(RequestRecord)) / sizeof(TensorRecord)) {
    return Broken("instance count");
  }
  const uint64_t begin = offset + sizeof(RequestRecord) + tensors * sizeof(TensorRecord);
  for (uint64_t i = 0; i < tensors; ++i) {
    if (Status status = CheckTensor(found->tensors()[i], begin, offset + bytes); !status.ok()) {
      return status;
    }
  }
  *record = found;
  return Status::Ok();
}

Status ReadReplyBlock(const uint8_t* slab, uint64_t slab_bytes, uint64_t offset, uint64_t bytes,
                      const ReplyRecord** record) {
  if (!HeadFits<ReplyRecord>(slab_bytes, offset, bytes)) {
    return Broken("reply block");
  }
  const auto* found = reinterpret_cast<const ReplyRecord*>(slab + offset);
  const uint64_t room = bytes - sizeof(ReplyRecord);
  if (found->count == 0 || found->count > room / sizeof(InstanceRecord)) {
    return Broken("instance count");
  }
  const uint64_t tensors = uint64_t{found->count} * found->outputs;
  const uint64_t tensor_room = room - found->count * sizeof(InstanceRecord);
  if (tensors > tensor_room / sizeof(TensorRecord)) {
    return Broken("output count");
  }
  const uint64_t end = offset + bytes;
  const uint64_t begin = end - tensor_room + tensors * sizeof(TensorRecord);
  for (uint32_t i = 0; i < found->count; ++i) {
    const InstanceRecord& instance = found->instances()[i];
    if (instance.error >= static_cast<uint32_t>(ErrorKind::kCount)) {
      return Broken("error kind");
    }
    if (instance.message_bytes > 0 && !Inside(instance.message_offset, instance.message_bytes, begin, end)) {
      return Broken("error message");
    }
    if (instance.error != 0) {
      continue;  // the tensor records of a failed instance are not written
    }
    for (uint32_t j = 0; j < found->outputs; ++j) {
      const TensorRecord& tensor = found->tensors()[uint64_t{i} * found->outputs + j];
      if (Status status = CheckTensor(tensor, begin, end); !status.ok()) {
        return status;
      }
    }
  }
  *record = found;
  return Status::Ok();
}

TensorView ViewOf(const uint8_t* slab, const TensorRecord& record) {
  TensorView view;
  view.data = slab + record.offset;
  view.bytes = record.bytes;
  view.dtype = static_cast<DataType>(record.dtype);
  view.rank = std::min<uint8_t>(record.rank, kMaxRank);
  for (int i = 0; i < view.rank; ++i) {
    view.dims[i] = record.dims[i];
  }
  return view;
}

}  // namespace msserving
