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

// Where in its own block (of one instance) the value that is returned as `output` lies, if the values returned before
// it are known.
uint64_t ReplyValueOffset(const Instance& instance, size_t output);

// `instances`: consecutive ones of one request. `offset` has ReplyBlockBytes() of room. A value that lies where it
// belongs already is not copied.
void WriteReplyBlock(uint8_t* slab, uint64_t offset, std::span<Instance* const> instances);

}  // namespace msserving
