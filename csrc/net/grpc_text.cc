#include "net/grpc_text.h"

#include <algorithm>

#include "base/clock.h"

namespace msserving {
namespace {

bool EqualsIgnoringCase(std::string_view text, std::string_view lower) {
  return text.size() == lower.size() && std::equal(text.begin(), text.end(), lower.begin(), [](char a, char b) {
           return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b;
         });
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) {
    text.remove_prefix(1);
  }
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) {
    text.remove_suffix(1);
  }
  return text;
}

}  // namespace

bool ParseGrpcTimeout(std::string_view text, int64_t* timeout_ns) {
  if (text.size() < 2 || text.size() > 9) {
    return false;
  }
  int64_t amount = 0;  // eight digits; times an hour in nanoseconds this is beyond int64
  for (const char digit : text.substr(0, text.size() - 1)) {
    if (digit < '0' || digit > '9') {
      return false;
    }
    amount = amount * 10 + (digit - '0');
  }
  int64_t unit_ns = 0;
  switch (text.back()) {
    case 'H': unit_ns = 3600 * kNanosPerSecond; break;
    case 'M': unit_ns = 60 * kNanosPerSecond; break;
    case 'S': unit_ns = kNanosPerSecond; break;
    case 'm': unit_ns = kNanosPerMilli; break;
    case 'u': unit_ns = kNanosPerMicro; break;
    case 'n': unit_ns = 1; break;
    default: return false;
  }
  *timeout_ns = amount > INT64_MAX / unit_ns ? INT64_MAX : amount * unit_ns;
  return true;
}

std::string PercentEncode(std::string_view text) {
  constexpr char kHex[] = "0123456789ABCDEF";
  const auto plain = [](char c) { return c >= 0x20 && c <= 0x7e && c != '%'; };
  if (std::all_of(text.begin(), text.end(), plain)) {
    return std::string(text);
  }
  std::string encoded;
  encoded.reserve(text.size());
  for (const char c : text) {
    if (plain(c)) {
      encoded.push_back(c);
    } else {
      const auto byte = static_cast<unsigned char>(c);
      encoded.push_back('%');
      encoded.push_back(kHex[byte >> 4]);
      encoded.push_back(kHex[byte & 15]);
    }
  }
  return encoded;
}

bool IsGrpcContentType(std::string_view value) {
  return EqualsIgnoringCase(Trim(value.substr(0, value.find(';'))), "application/grpc") ||
         EqualsIgnoringCase(Trim(value.substr(0, value.find(';'))), "application/grpc+proto");
}

bool ListHas(std::string_view list, std::string_view name) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (EqualsIgnoringCase(Trim(list.substr(0, comma)), name)) {
      return true;
    }
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

}  // namespace msserving
