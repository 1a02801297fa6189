#include "protocol/reply_summary.h"

#include <algorithm>
#include <limits>

namespace msserving {
namespace {

constexpr std::string_view kInstance = ", instance ";
constexpr size_t kMaxMessage = 2 * 192 + 3;  // of Shorten()

}  // namespace

ReplySummary Summarise(std::span<const InstanceResult> results) {
  ReplySummary summary;
  bool alike = true;
  for (const InstanceResult& result : results) {
    if (result.error != ErrorKind::kOk && !summary.any_failed) {
      summary.any_failed = true;
      summary.kind = result.error;
      summary.message = result.message;
      continue;
    }
    alike = alike && result.error != ErrorKind::kOk &&
            TraitsOf(result.error).wire_code == TraitsOf(summary.kind).wire_code && result.message == summary.message;
  }
  summary.whole_failed = summary.any_failed && alike;
  return summary;
}

std::string InstanceMessage(std::span<const InstanceResult> results, size_t index) {
  const InstanceResult& result = results[index];
  if (result.error != ErrorKind::kCallFailed || results.size() == 1) {
    return Shorten(result.message);
  }
  return Shorten(std::string(result.message).append(kInstance) + std::to_string(index));
}

size_t MaxInstanceMessage(const InstanceResult& result) {
  return std::min(result.message.size() + kInstance.size() + std::numeric_limits<size_t>::digits10 + 1, kMaxMessage);
}

}  // namespace msserving
