// The headers of gRPC replies, ready for nghttp2. Internal to grpc_server.
#pragma once

#include <nghttp2/nghttp2.h>

#include <span>
#include <string>
#include <string_view>

#include "net/grpc_server.h"

namespace msserving {

// Of an error's text, before it is encoded; clients refuse headers that are too long.
inline constexpr size_t kMaxStatusMessage = 2048;

// Both texts must live as long as the session.
inline nghttp2_nv StaticHeader(std::string_view name, std::string_view value) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
          NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

// nghttp2 copies the value, and does not remember it for later replies.
inline nghttp2_nv CopiedHeader(std::string_view name, std::string_view value) {
  nghttp2_nv header = StaticHeader(name, value);
  header.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_INDEX;
  return header;
}

inline constexpr size_t kMaxReplyHeaders = 4;

// At most kMaxReplyHeaders. Our encodings are told to clients that have told theirs.
std::span<const nghttp2_nv> ReplyHeaders(bool tell_encodings, bool compressed);
std::span<const nghttp2_nv> OkTrailers();

// "0" to "16".
std::string_view StatusText(GrpcStatus status);

// "Received message larger than max (N vs. M)".
std::string TooLarge(std::string_view verb, size_t size, size_t limit);

}  // namespace msserving
