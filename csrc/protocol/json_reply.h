// The body of a REST reply: tensors to JSON text, compact, UTF-8, keys sorted.
//
// {"instances":[{"y":[1.0,2.5]},{"error_msg":"..."}]}, or {"error_msg":"..."} when the whole request failed
// (reply_summary.h). Integers are JSON integers; reals are the shortest text that reads back as the same value of the
// tensor's own type (float16 is written as the float32 of the same value) and keep a fraction or an exponent; NaN and
// infinities are null. Text is a JSON string in which wrong UTF-8 is replaced by U+FFFD; bytes are {"b64":"..."}.
// Empty dims are a bare value.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "net/buffer.h"
#include "protocol/reply_summary.h"
#include "servable/dispatcher.h"
#include "servable/signature.h"
#include "tensor/tensor_view.h"

namespace msserving {

// Functions without state; any thread. They append to `out` and allocate nothing else (more than 32 outputs aside).

// `summary` is Summarise(results). Messages are shortened as Shorten() does.
void EncodeJsonReply(const MethodSignature& signature, std::span<const InstanceResult> results,
                     const ReplySummary& summary, Buffer* out);
void EncodeJsonReply(const MethodSignature& signature, std::span<const InstanceResult> results, Buffer* out);

void EncodeJsonError(std::string_view message, Buffer* out);

// One tensor's value, one string with its quotes.
void EncodeJsonTensor(const TensorView& tensor, Buffer* out);
void EncodeJsonString(std::string_view text, Buffer* out);

}  // namespace msserving
