// Replays one recorded request through one part of the hot path, again and again, on one thread and without a socket:
// for counting instructions, which do not depend on how busy the machine is.
//   hot_path_replay PART REQUEST_FILE COUNT
// A file whose name begins with "add" has the inputs x1 and x2, any other one the input image.
// PART: grpc-decode, grpc-reply, json-decode, json-reply (a reply with the request's own tensors as outputs), queue
// (each instance of the request through a batch queue, in batches of 16).
// tests/support/count_instructions.py runs it.
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "batching/batch_queue.h"
#include "protocol/json_reply.h"
#include "protocol/json_request.h"
#include "protocol/predict_codec.h"

namespace msserving {
namespace {

[[noreturn]] void Die(const std::string& text) {
  std::fprintf(stderr, "hot_path_replay: %s\n", text.c_str());
  std::exit(2);
}

void Must(const Status& status) {
  if (!status.ok()) {
    Die(status.message());
  }
}

// A recorded request, and what it asks for.
class Request {
 public:
  explicit Request(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    body_.assign(std::istreambuf_iterator<char>(file), {});
    if (body_.empty()) {
      Die("cannot read " + path);
    }
    size_ = body_.size();
    body_.resize(size_ + Buffer::kPadding);
    const bool adds = path.substr(path.rfind('/') + 1).starts_with("add");  // what the method's inputs are called
    signature_.inputs = adds ? std::vector<std::string>{"x1", "x2"} : std::vector<std::string>{"image"};
    signature_.outputs = signature_.inputs;
  }

  std::span<const uint8_t> bytes() const { return {reinterpret_cast<const uint8_t*>(body_.data()), size_}; }
  const MethodSignature& signature() const { return signature_; }

 private:
  std::string body_;
  size_t size_ = 0;
  MethodSignature signature_{"predict", {}, {}};
};

// Keeps what was computed from being optimised away.
void Use(const void* result) { asm volatile("" : : "g"(result) : "memory"); }

void GrpcDecode(const Request& request, uint64_t count) {
  RequestEnvelope envelope;
  RequestInstances instances;
  for (uint64_t i = 0; i < count; ++i) {
    Must(ParseEnvelope(request.bytes(), &envelope));
    Must(ParseInstances(envelope, request.signature(), &instances));
    Use(instances.tensors.data());
  }
}

void JsonDecode(const Request& request, uint64_t count) {
  JsonRequestParser parser;
  RequestInstances instances;
  for (uint64_t i = 0; i < count; ++i) {
    Must(parser.Parse(request.bytes(), request.signature(), &instances));
    Use(instances.tensors.data());
  }
}

std::vector<InstanceResult> Mirror(const Request& request, const RequestInstances& instances) {
  const size_t outputs = request.signature().outputs.size();
  std::vector<InstanceResult> results;
  for (size_t i = 0; i < instances.count; ++i) {
    results.push_back({ErrorKind::kOk, {}, std::span(instances.tensors).subspan(i * outputs, outputs)});
  }
  return results;
}

void GrpcReply(const Request& request, uint64_t count) {
  RequestEnvelope envelope;
  RequestInstances instances;
  Must(ParseEnvelope(request.bytes(), &envelope));
  Must(ParseInstances(envelope, request.signature(), &instances));
  const std::vector<InstanceResult> results = Mirror(request, instances);
  OutgoingBody body;
  for (uint64_t i = 0; i < count; ++i) {
    body.encoded.Clear();
    body.slices.clear();
    EncodeReply(envelope.spec, request.signature(), results, &body);
    Use(body.encoded.data());
  }
}

void JsonReply(const Request& request, uint64_t count) {
  JsonRequestParser parser;
  RequestInstances instances;
  Must(parser.Parse(request.bytes(), request.signature(), &instances));
  const std::vector<InstanceResult> results = Mirror(request, instances);
  Buffer out;
  for (uint64_t i = 0; i < count; ++i) {
    out.Clear();
    EncodeJsonReply(request.signature(), results, &out);
    Use(out.data());
  }
}

void Queue(const Request& request, uint64_t count) {
  RequestEnvelope envelope;
  RequestInstances instances;
  Must(ParseEnvelope(request.bytes(), &envelope));
  Must(ParseInstances(envelope, request.signature(), &instances));
  const FakeClock clock;
  BatchPolicy policy;
  policy.max_batch = 16;
  BatchQueue queue(policy, clock);
  std::vector<BatchItem> items(instances.count);
  std::vector<BatchItem*> batch(policy.max_batch);
  for (uint64_t i = 0; i < count; ++i) {
    for (BatchItem& item : items) {
      item.queued_ns = clock.NowNs();
      queue.Push(&item);
    }
    while (queue.Ready()) {
      Use(queue.Take(batch).expired);
    }
  }
}

int Main(int argc, char** argv) {
  const std::map<std::string_view, void (*)(const Request&, uint64_t)> parts = {{"grpc-decode", GrpcDecode},
                                                                                {"grpc-reply", GrpcReply},
                                                                                {"json-decode", JsonDecode},
                                                                                {"json-reply", JsonReply},
                                                                                {"queue", Queue}};
  if (argc != 4 || !parts.contains(argv[1])) {
    Die("usage: hot_path_replay grpc-decode|grpc-reply|json-decode|json-reply|queue REQUEST_FILE COUNT");
  }
  uint64_t count = 0;
  const std::string_view text(argv[3]);
  if (std::from_chars(text.data(), text.data() + text.size(), count).ptr != text.data() + text.size()) {
    Die("COUNT is a number");
  }
  parts.at(argv[1])(Request(argv[2]), count);
  return 0;
}

}  // namespace
}  // namespace msserving

int main(int argc, char** argv) { return msserving::Main(argc, argv); }
