// PredictRequest and PredictReply of proto/ms_service.proto, between wire bytes and tensor views. Two passes over a
// request and no copy of its tensors: the envelope tells which method is asked for, then the method's signature tells
// which tensors to pick out. Functions without state: any thread, distinct objects.
//
// Every legal encoding is understood (packed, split and repeated fields, reordered or incomplete map entries, unknown
// fields and groups); where a message says something twice, protobuf's rules decide. Memory taken for a request is
// bounded by kMaxInstances, not by what its lengths claim.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "net/buffer.h"
#include "servable/dispatcher.h"
#include "servable/signature.h"
#include "tensor/tensor_view.h"

namespace msserving {

// An instance may take two bytes of a message but needs a hundred here, hence a limit of its own.
inline constexpr size_t kMaxInstances = 65'536;

// Output tensors from this size on are not copied into the reply but sent from where they are.
inline constexpr uint64_t kSliceBytes = 16 * 1024;

// Views into the message that was parsed. Reuse one object for many requests. Stays where it is: `spec` may point
// into `joined_spec`.
struct RequestEnvelope {
  RequestEnvelope() = default;
  RequestEnvelope(const RequestEnvelope&) = delete;

  std::string_view servable;
  std::string_view method;
  uint64_t version = 0;                             // 0: the newest
  std::span<const uint8_t> spec;                    // the ServableSpec's bytes, to be echoed as they are
  std::vector<std::span<const uint8_t>> instances;  // each an Instance's bytes
  std::string joined_spec;                          // behind `spec` if the message had it in several pieces

  void Clear();
  // Gives back what an unusually large request has left in `instances` and `joined_spec`.
  void ShrinkIfLarge();
};

// The fields of a ServableSpec message; what it does not set stays as it was. False: malformed.
bool ParseSpec(std::span<const uint8_t> message, std::string_view* servable, std::string_view* method,
               uint64_t* version);

// kInvalidInput: malformed, or more than kMaxInstances. On failure the envelope is empty.
Status ParseEnvelope(std::span<const uint8_t> message, RequestEnvelope* envelope);

// Fills out->tensors with envelope.instances.size() x signature.inputs.size() views into the message. Inputs that the
// signature does not know are ignored once they are found well-formed. kInvalidInput, in this order: no instances;
// malformed or shared-memory fields; an input missing from an instance; a tensor that breaks the rules of encoding.
Status ParseInstances(const RequestEnvelope& envelope, const MethodSignature& signature, RequestInstances* out);

// Encodes the outcome of a request, one result per instance, into the empty `out`. `spec` is the request's
// (RequestEnvelope::spec). Outputs of kSliceBytes and more become out->slices: then their memory must outlive `out`,
// by out->keep_alive, which is the caller's to set. Without slices nothing of the results is needed any more. Takes
// room in out->encoded once, for the whole reply.
void EncodeReply(std::span<const uint8_t> spec, const MethodSignature& signature,
                 std::span<const InstanceResult> results, OutgoingBody* out);

// Encodes a reply that says that the whole request failed. Long messages are shortened.
void EncodeError(std::span<const uint8_t> spec, ErrorKind kind, std::string_view message, OutgoingBody* out);

}  // namespace msserving
