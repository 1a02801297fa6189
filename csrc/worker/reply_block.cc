#include "worker/reply_block.h"

#include <cstring>

namespace msserving {
namespace {

constexpr uint64_t AlignUp(uint64_t bytes) {
  return (bytes + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
}

uint64_t HeadBytes(const MethodPlan& plan, uint64_t count) {
  return AlignUp(sizeof(ReplyRecord) + count * (sizeof(InstanceRecord) + plan.returns.size() * sizeof(TensorRecord)));
}

}  // namespace

uint64_t ReplyPayloadBytes(const Instance& instance) {
  if (instance.error != ErrorKind::kOk) {
    return AlignUp(instance.message.size());
  }
  uint64_t bytes = 0;
  for (const uint16_t value : instance.request->plan->returns) {
    bytes += AlignUp(instance.values[value].bytes);
  }
  return bytes;
}

uint64_t ReplyBlockBytes(const MethodPlan& plan, uint64_t count, uint64_t payload_bytes) {
  return HeadBytes(plan, count) + payload_bytes;
}

uint64_t ReplyValueOffset(const Instance& instance, size_t output) {
  const MethodPlan& plan = *instance.request->plan;
  uint64_t offset = HeadBytes(plan, 1);
  for (size_t i = 0; i < output; ++i) {
    offset += AlignUp(instance.values[plan.returns[i]].bytes);
  }
  return offset;
}

void WriteReplyBlock(uint8_t* slab, uint64_t offset, std::span<Instance* const> instances) {
  const RequestState& request = *instances[0]->request;
  const MethodPlan& plan = *request.plan;
  auto* record = reinterpret_cast<ReplyRecord*>(slab + offset);
  record->request = request.id;
  record->first = instances[0]->index;
  record->count = static_cast<uint32_t>(instances.size());
  record->outputs = static_cast<uint32_t>(plan.returns.size());
  InstanceRecord* outcome = record->instances();
  TensorRecord* tensor = record->tensors();
  uint64_t at = offset + HeadBytes(plan, instances.size());
  for (const Instance* instance : instances) {
    outcome->error = static_cast<uint32_t>(instance->error);
    outcome->message_bytes = 0;
    outcome->message_offset = 0;
    if (instance->error != ErrorKind::kOk) {
      outcome->message_bytes = static_cast<uint32_t>(instance->message.size());
      outcome->message_offset = at;
      std::memcpy(slab + at, instance->message.data(), instance->message.size());
      at += AlignUp(instance->message.size());
      tensor += plan.returns.size();
      ++outcome;
      continue;
    }
    for (const uint16_t number : plan.returns) {
      const TensorView& value = instance->values[number];
      tensor->offset = at;
      tensor->bytes = value.bytes;
      tensor->dtype = static_cast<uint8_t>(value.dtype);
      tensor->rank = value.rank;
      for (int i = 0; i < value.rank; ++i) {
        tensor->dims[i] = value.dims[i];
      }
      if (value.bytes > 0 && value.data != slab + at) {
        std::memcpy(slab + at, value.data, value.bytes);
      }
      at += AlignUp(value.bytes);
      ++tensor;
    }
    ++outcome;
  }
}

}  // namespace msserving
