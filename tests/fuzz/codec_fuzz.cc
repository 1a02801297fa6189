// Any bytes as a PredictRequest and as a PredictReply. Beyond not crashing: what was understood must survive being
// written and read again.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "protocol/predict_client_codec.h"
#include "protocol/predict_codec.h"

namespace msserving {
namespace {

void Require(bool holds, const char* what) {
  if (!holds) {
    std::fprintf(stderr, "broken: %s\n", what);
    std::abort();
  }
}

bool Same(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.bytes == b.bytes && std::ranges::equal(a.shape(), b.shape()) &&
         std::equal(a.data, a.data + a.bytes, b.data);
}

std::vector<uint8_t> Assemble(const OutgoingBody& body) {
  std::vector<uint8_t> out;
  const uint8_t* from = body.encoded.data();
  size_t at = 0;
  for (const OutgoingBody::Slice& slice : body.slices) {
    out.insert(out.end(), from + at, from + slice.at);
    out.insert(out.end(), slice.data, slice.data + slice.size);
    at = slice.at;
  }
  out.insert(out.end(), from + at, from + body.encoded.size());
  return out;
}

void CheckRequest(const RequestEnvelope& envelope, const MethodSignature& signature) {
  RequestInstances instances;
  const Status status = ParseInstances(envelope, signature, &instances);
  Require(status.ok() || (status.kind() == ErrorKind::kInvalidInput && !status.message().empty()), "error has no text");
  if (!status.ok()) {
    OutgoingBody error;
    EncodeError(envelope.spec, status.kind(), status.message(), &error);
    ParsedReply reply;
    Require(ParseReply(error.encoded.bytes(), &reply).ok() && reply.errors.size() == 1, "error is not read again");
    return;
  }
  const size_t inputs = signature.inputs.size();
  Require(instances.count == envelope.instances.size(), "instances are lost");
  Require(instances.tensors.size() == instances.count * inputs, "tensors are lost");

  Buffer message;
  EncodeRequest(envelope.servable, envelope.method, envelope.version, signature.inputs, instances, &message);
  RequestEnvelope again_envelope;
  RequestInstances again;
  Require(ParseEnvelope(message.bytes(), &again_envelope).ok(), "own envelope is refused");
  Require(ParseInstances(again_envelope, signature, &again).ok(), "own request is refused");
  Require(again_envelope.servable == envelope.servable && again_envelope.version == envelope.version, "spec differs");
  Require(std::ranges::equal(instances.tensors, again.tensors, Same), "tensors differ");

  // Inputs as outputs, every third instance failed.
  std::vector<InstanceResult> results;
  for (size_t i = 0; i < instances.count; ++i) {
    if (i % 3 == 2) {
      results.push_back({ErrorKind::kStageFailed, envelope.method, {}});
    } else {
      results.push_back({ErrorKind::kOk, {}, std::span(instances.tensors).subspan(i * inputs, inputs)});
    }
  }
  OutgoingBody body;
  EncodeReply(envelope.spec, signature, results, &body);
  const std::vector<uint8_t> bytes = Assemble(body);
  Require(bytes.size() == body.TotalSize(), "sizes differ");
  ParsedReply reply;
  Require(ParseReply(bytes, &reply).ok(), "own reply is refused");
  Require(reply.instances.size() == results.size() && reply.version == envelope.version, "reply differs");
  for (size_t i = 0; i < results.size(); ++i) {
    Require(reply.instances[i].size() == results[i].outputs.size(), "outputs are lost");
    for (size_t k = 0; k < reply.instances[i].size(); ++k) {
      Require(Same(reply.instances[i][k].view, results[i].outputs[k]), "outputs differ");
    }
  }
}

}  // namespace
}  // namespace msserving

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace msserving;
  static const MethodSignature kSignatures[] = {
      {"none", {}, {}}, {"one", {"a"}, {"a"}}, {"three", {"a", "b", "c"}, {"a", "b", "c"}}};
  const std::span<const uint8_t> message(data, size);
  RequestEnvelope envelope;
  if (ParseEnvelope(message, &envelope).ok()) {
    for (const MethodSignature& signature : kSignatures) {
      CheckRequest(envelope, signature);
    }
  }
  ParsedReply reply;
  (void)ParseReply(message, &reply).ok();
  return 0;
}
