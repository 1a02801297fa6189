// Lets another language check the codec. Messages come on stdin, answers leave on stdout, each with its length in four
// little-endian bytes before it. The first byte of a message says what it is, the rest is the message itself:
//   'Q'  a PredictRequest for a method with inputs "a", "b", "c" and outputs "a", "b", "c".
//        Answer: 'E' and the error's text; or 'O', the version in decimal and a newline, the length of the re-encoded
//        request in decimal and a newline, that request, then a reply which returns the inputs as outputs.
//   'R'  a PredictReply. Answer: 'E' and the error's text; or 'O' and one line per fact, fields parted by tabs:
//        "instance", "tensor <name> <dtype> <dims> <bytes>", "error <code> <text>"; names, bytes and texts in hex.
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/predict_client_codec.h"
#include "protocol/predict_codec.h"

namespace msserving {
namespace {

const MethodSignature kEcho{"echo", {"a", "b", "c"}, {"a", "b", "c"}};

std::string Hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const char c : bytes) {
    out += kDigits[static_cast<uint8_t>(c) >> 4];
    out += kDigits[static_cast<uint8_t>(c) & 15];
  }
  return out;
}

std::string_view TextOf(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string TextOf(const OutgoingBody& body) {
  std::string out;
  size_t at = 0;
  for (const OutgoingBody::Slice& slice : body.slices) {
    out += TextOf(body.encoded.bytes().subspan(at, slice.at - at));
    out += TextOf({slice.data, slice.size});
    at = slice.at;
  }
  return out += TextOf(body.encoded.bytes().subspan(at));
}

std::string AnswerRequest(std::span<const uint8_t> message) {
  RequestEnvelope envelope;
  RequestInstances instances;
  Status status = ParseEnvelope(message, &envelope);
  if (status.ok()) {
    status = ParseInstances(envelope, kEcho, &instances);
  }
  if (!status.ok()) {
    return "E" + status.message();
  }
  Buffer request;
  EncodeRequest(envelope.servable, envelope.method, envelope.version, kEcho.inputs, instances, &request);
  std::vector<InstanceResult> results;
  for (size_t i = 0; i < instances.count; ++i) {
    results.push_back({ErrorKind::kOk, {}, std::span(instances.tensors).subspan(i * 3, 3)});
  }
  OutgoingBody reply;
  EncodeReply(envelope.spec, kEcho, results, &reply);
  std::string out = "O" + std::to_string(envelope.version) + "\n" + std::to_string(request.size()) + "\n";
  out += TextOf(request.bytes());
  return out += TextOf(reply);
}

std::string AnswerReply(std::span<const uint8_t> message) {
  ParsedReply reply;
  const Status status = ParseReply(message, &reply);
  if (!status.ok()) {
    return "E" + status.message();
  }
  std::string out = "O";
  for (const auto& instance : reply.instances) {
    out += "instance\n";
    for (const NamedTensor& item : instance) {
      out += "tensor\t" + Hex(item.name) + "\t" + std::to_string(static_cast<int>(item.view.dtype)) + "\t";
      for (int i = 0; i < item.view.rank; ++i) {
        out += (i > 0 ? "," : "") + std::to_string(item.view.dims[i]);
      }
      out += "\t" + Hex(TextOf({item.view.data, item.view.bytes})) + "\n";
    }
  }
  for (const ReplyError& error : reply.errors) {
    out += "error\t" + std::to_string(error.code) + "\t" + Hex(error.message) + "\n";
  }
  return out;
}

bool Read(void* to, size_t size) { return std::fread(to, 1, size, stdin) == size; }

int Run() {
  uint8_t length[4];
  while (Read(length, sizeof(length))) {
    const uint32_t size = length[0] | length[1] << 8 | length[2] << 16 | static_cast<uint32_t>(length[3]) << 24;
    std::vector<uint8_t> message(size);  // exactly as long as the message: a sanitizer sees every step beyond it
    if (size == 0 || !Read(message.data(), size)) {
      return 1;
    }
    const std::span<const uint8_t> content = std::span(message).subspan(1);
    const std::string answer = message[0] == 'Q' ? AnswerRequest(content) : AnswerReply(content);
    const auto count = static_cast<uint32_t>(answer.size());
    const uint8_t prefix[4] = {static_cast<uint8_t>(count), static_cast<uint8_t>(count >> 8),
                               static_cast<uint8_t>(count >> 16), static_cast<uint8_t>(count >> 24)};
    std::fwrite(prefix, 1, sizeof(prefix), stdout);
    std::fwrite(answer.data(), 1, answer.size(), stdout);
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace msserving

int main() { return msserving::Run(); }
