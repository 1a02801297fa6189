// Requests parsed and replies put together, for the tests of protocol/predict_codec.h.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "protocol/predict_codec.h"
#include "wire_builder.h"

namespace msserving::testing_support {

// Numbers of data types, as messages carry them.
inline constexpr uint64_t kFloat32 = 11;
inline constexpr uint64_t kString = 13;
inline constexpr uint64_t kBytes = 14;

inline const MethodSignature kAdd{"add", {"x1", "x2"}, {"y"}};
inline const MethodSignature kOne{"one", {"x"}, {"y"}};

// What became of a request.
struct Parsed {
  Status status;
  RequestEnvelope envelope;
  RequestInstances instances;
};

// Refused only as bad input, and then nothing is left of it.
inline std::unique_ptr<Parsed> Parse(std::span<const uint8_t> message, const MethodSignature& signature) {
  auto parsed = std::make_unique<Parsed>();
  parsed->status = ParseEnvelope(message, &parsed->envelope);
  if (parsed->status.ok()) {
    parsed->status = ParseInstances(parsed->envelope, signature, &parsed->instances);
  }
  EXPECT_TRUE(parsed->status.ok() || parsed->status.kind() == ErrorKind::kInvalidInput);
  EXPECT_TRUE(parsed->status.ok() || parsed->instances.tensors.empty());
  return parsed;
}

// The outcome of a request with one instance that has the one input "x".
inline std::string OneInput(const Message& tensor) {
  const Message request = Request(Spec("s", "one"), {Instance({Item("x", tensor)})});
  const auto parsed = Parse(request.bytes(), kOne);
  if (!parsed->status.ok()) {
    return parsed->status.message();
  }
  const TensorView& view = parsed->instances.tensors[0];
  std::string text = NameOf(view.dtype);
  for (const int64_t dim : view.shape()) {
    text += " " + std::to_string(dim);
  }
  return text + ": " + std::string(reinterpret_cast<const char*>(view.data), view.bytes);
}

inline std::string Text(const TensorView& view) { return {reinterpret_cast<const char*>(view.data), view.bytes}; }

// What the socket would carry.
inline std::string Assemble(const OutgoingBody& body) {
  std::string out;
  size_t at = 0;
  for (const OutgoingBody::Slice& slice : body.slices) {
    out.append(reinterpret_cast<const char*>(body.encoded.data()) + at, slice.at - at);
    out.append(reinterpret_cast<const char*>(slice.data), slice.size);
    at = slice.at;
  }
  out.append(reinterpret_cast<const char*>(body.encoded.data()) + at, body.encoded.size() - at);
  EXPECT_EQ(out.size(), body.TotalSize());
  return out;
}

// `bytes` stays where it is.
inline TensorView View(DataType dtype, std::initializer_list<int64_t> dims, std::string_view bytes) {
  TensorView view;
  view.data = reinterpret_cast<const uint8_t*>(bytes.data());
  view.bytes = bytes.size();
  view.dtype = dtype;
  for (const int64_t dim : dims) {
    view.dims[view.rank++] = dim;
  }
  return view;
}

}  // namespace msserving::testing_support
