// The client's half of the codec: requests out, replies in. For C++ programs that call a server, for benchmarks and
// for tests. Any thread, distinct objects.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "net/buffer.h"
#include "servable/dispatcher.h"
#include "tensor/tensor_view.h"

namespace msserving {

struct NamedTensor {
  std::string_view name;
  TensorView view;
};

// A request whose instances may differ in what they have: instance i has the next counts[i] of `tensors`.
struct ClientRequest {
  std::string_view servable;
  std::string_view method;
  uint64_t version = 0;
  std::span<const uint32_t> counts;
  std::span<const NamedTensor> tensors;
};

// Bytes of the PredictRequest message, and the message itself, written to that much room. Names and texts are UTF-8.
size_t SizeOfRequest(const ClientRequest& request);
void WriteRequest(const ClientRequest& request, uint8_t* to);

// Appends a PredictRequest to `out`: instances.count rows of inputs.size() tensors each. Tensors are copied.
void EncodeRequest(std::string_view servable, std::string_view method, uint64_t version,
                   std::span<const std::string> inputs, const RequestInstances& instances, Buffer* out);

struct ReplyError {
  int64_t code = 0;  // 0: success
  std::string_view message;
};

// Views into the message that was parsed.
struct ParsedReply {
  std::string_view servable;
  std::string_view method;
  uint64_t version = 0;
  std::vector<std::vector<NamedTensor>> instances;  // names are unique within one, in the message's order
  std::vector<ReplyError> errors;                   // empty, one for the whole request, or one per instance
};

// kInternal: not a well-formed PredictReply, or a tensor in it breaks the rules of encoding.
Status ParseReply(std::span<const uint8_t> message, ParsedReply* reply);

}  // namespace msserving
