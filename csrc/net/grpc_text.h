// The small texts of gRPC over HTTP/2: timeouts, messages, content types, lists of encodings.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace msserving {

// "250m" and the like: one to eight digits and a unit (H M S m u n). False if it is none.
bool ParseGrpcTimeout(std::string_view text, int64_t* timeout_ns);

// As grpc-message wants it: everything but printable ASCII, and '%', becomes %XX.
std::string PercentEncode(std::string_view text);

// "application/grpc" or "application/grpc+proto", with or without parameters.
bool IsGrpcContentType(std::string_view value);

// Is `name` among the comma-separated values?
bool ListHas(std::string_view list, std::string_view name);

}  // namespace msserving
