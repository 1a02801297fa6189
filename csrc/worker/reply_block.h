// Reply blocks as tensor/exchange.h defines them, written from finished instances.
#pragma once

#include <cstdint>
#include <span>

#include "worker/method_plan.h"

namespace msserving {

// The tensors and message of one instance, each rounded up to the alignment, without its records.
uint64_t ReplyPayloadBytes(const Instance& instance);

// The whole block for `count` instances with these payloads.
uint64_t ReplyBlockBytes(const MethodPlan& plan, uint64_t count, uint64_t payload_bytes);

// `instances`: consecutive ones of one request. `offset` has ReplyBlockBytes() of room.
void WriteReplyBlock(uint8_t* slab, uint64_t offset, std::span<Instance* const> instances);

}  // namespace msserving
