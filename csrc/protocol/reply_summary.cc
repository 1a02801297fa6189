#include "protocol/reply_summary.h"

namespace msserving {

ReplySummary Summarise(std::span<const InstanceResult> results) {
  ReplySummary summary;
  bool alike = true;
  for (const InstanceResult& result : results) {
    if (result.error == ErrorKind::kOk) {
      alike = false;
    } else if (!summary.any_failed) {
      summary.any_failed = true;
      summary.kind = result.error;
      summary.message = result.message;
    } else if (TraitsOf(result.error).wire_code != TraitsOf(summary.kind).wire_code ||
               result.message != summary.message) {
      alike = false;
    }
  }
  summary.whole_failed = summary.any_failed && alike;
  return summary;
}

}  // namespace msserving
