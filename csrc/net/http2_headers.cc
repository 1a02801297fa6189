#include "net/http2_headers.h"

#include <array>

namespace msserving {

std::span<const nghttp2_nv> ReplyHeaders(bool tell_encodings, bool compressed) {
  static const std::array headers = {StaticHeader(":status", "200"), StaticHeader("content-type", "application/grpc"),
                                     StaticHeader("grpc-accept-encoding", "identity,deflate,gzip"),
                                     StaticHeader("grpc-encoding", "gzip")};
  return std::span<const nghttp2_nv>(headers).first(compressed ? 4 : tell_encodings ? 3 : 2);
}

std::span<const nghttp2_nv> OkTrailers() {
  static const std::array trailers = {StaticHeader("grpc-status", "0")};
  return trailers;
}

std::string_view StatusText(GrpcStatus status) {
  static constexpr std::string_view kTexts[] = {"0", "1",  "2",  "3",  "4",  "5",  "6",  "7", "8",
                                                "9", "10", "11", "12", "13", "14", "15", "16"};
  const auto index = static_cast<size_t>(status);
  return index < std::size(kTexts) ? kTexts[index] : kTexts[2];
}

std::string TooLarge(std::string_view verb, size_t size, size_t limit) {
  return std::string(verb) + " message larger than max (" + std::to_string(size) + " vs. " + std::to_string(limit) +
         ")";
}

}  // namespace msserving
