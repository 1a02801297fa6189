// JSON requests: nothing crashes, views stay inside, what is accepted is consistent, the short way and the long one
// read the same tensors, and a reply made from the tensors is JSON that is accepted again.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>

#include "net/buffer.h"
#include "protocol/json_reply.h"
#include "protocol/json_request.h"

namespace {

using namespace msserving;

void Require(bool condition) {
  if (!condition) {
    std::abort();
  }
}

Buffer Padded(const uint8_t* data, size_t size) {
  Buffer buffer;
  buffer.Reserve(size + 1);
  buffer.Append(data, size);
  std::memset(buffer.data() + size, '1', Buffer::kPadding);
  return buffer;
}

// An accepted text with one more key that has an escape, which takes the long way.
std::string WithEscape(const uint8_t* data, size_t size) {
  std::string text(reinterpret_cast<const char*>(data), size);
  return text.insert(text.find('{') + 1, R"("z":"\n",)");
}

bool Equal(const TensorView& a, const TensorView& b) {
  return a.dtype == b.dtype && a.rank == b.rank && std::equal(a.dims, a.dims + a.rank, b.dims) && a.bytes == b.bytes &&
         std::memcmp(a.data, b.data, a.bytes) == 0;
}

void RequireSameByTheLongWay(const uint8_t* data, size_t size, const MethodSignature& signature,
                             const RequestInstances& expected) {
  static JsonRequestParser parser;
  static RequestInstances request;
  const std::string text = WithEscape(data, size);
  const Buffer body = Padded(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  Require(parser.Parse(body.bytes(), signature, &request).ok());
  Require(std::equal(request.tensors.begin(), request.tensors.end(), expected.tensors.begin(), expected.tensors.end(),
                     Equal));
  parser.Trim(1 << 16);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const MethodSignature signature{"m", {"x", "y"}, {"x", "y"}};
  static JsonRequestParser parser;
  static RequestInstances request;
  const Buffer body = Padded(data, size);
  const bool is_json = parser.Validate(body.bytes()).ok();
  const Status status = parser.Parse(body.bytes(), signature, &request);
  Require(!status.ok() || is_json);
  Require(status.ok() == (request.count > 0));
  Require(request.tensors.size() == request.count * 2);
  if (status.ok()) {
    RequireSameByTheLongWay(data, size, signature, request);
  }
  Buffer reply;
  for (size_t i = 0; i < request.count; ++i) {
    const std::span outputs(request.tensors.data() + 2 * i, 2);
    for (const TensorView& tensor : outputs) {
      const int64_t count = ElementCount(tensor.shape());
      Require(count >= 0 && tensor.rank <= kMaxRank);
      Require(IsText(tensor.dtype) ? count == 1
                                   : tensor.bytes == static_cast<uint64_t>(count) * ItemSize(tensor.dtype));
      if (tensor.rank >= 2 && count == 0 && ElementCount(tensor.shape().first(tensor.rank - 1)) > 1000) {
        return 0;  // a long list of empty lists
      }
    }
    const InstanceResult result{ErrorKind::kOk, {}, outputs};
    EncodeJsonReply(signature, {&result, 1}, &reply);
  }
  if (request.count == 1) {
    const Buffer again = Padded(reply.data(), reply.size());
    Require(parser.Validate(again.bytes()).ok());
  }
  parser.Trim(1 << 16);
  return 0;
}
