#include "base/error.h"

#include <array>

namespace msserving {
namespace {

constexpr size_t kKept = 192;

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

}  // namespace

const ErrorTraits& TraitsOf(ErrorKind kind) {
  // name, wire code, gRPC status, HTTP status, travels in the reply
  static constexpr std::array<ErrorTraits, static_cast<size_t>(ErrorKind::kCount)> kTable{{
      {"ok", 0, 0, 200, true},
      {"overloaded", 1, 8, 429, false},
      {"invalid_input", 2, 3, 400, true},
      {"stage_failed", 2, 2, 500, true},
      {"call_failed", 3, 2, 500, true},
      {"internal", 3, 13, 500, true},
      {"worker_unavailable", 4, 14, 503, true},
      {"servable_unavailable", 5, 14, 404, true},
      {"method_unavailable", 2, 5, 404, true},
      {"deadline_exceeded", 1, 4, 504, false},
      {"cancelled", 1, 1, 499, false},
      {"message_too_large", 2, 8, 413, false},
      {"method_not_allowed", 2, 12, 405, true},
      {"unauthenticated", 2, 16, 401, false},
      {"timed_out", 3, 4, 504, true},
  }};
  const auto index = static_cast<size_t>(kind);
  return index < kTable.size() ? kTable[index] : kTable[static_cast<size_t>(ErrorKind::kInternal)];
}

std::string Shorten(std::string_view message) {
  if (message.size() <= 2 * kKept) {
    return std::string(message);
  }
  size_t head = kKept;
  while (head > 0 && IsContinuation(message[head])) {
    --head;
  }
  size_t tail = message.size() - kKept;
  while (tail < message.size() && IsContinuation(message[tail])) {
    ++tail;
  }
  std::string out(message.substr(0, head));
  out += "...";
  out += message.substr(tail);
  return out;
}

}  // namespace msserving
