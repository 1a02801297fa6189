// The collapse rule, one for gRPC and REST: when every instance of a request failed with the same code and the same
// text, the reply carries that error once, for the whole request.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "servable/dispatcher.h"

namespace msserving {

struct ReplySummary {
  bool whole_failed = false;        // send one error and no instances
  ErrorKind kind = ErrorKind::kOk;  // of the first failed instance; the whole request's if whole_failed
  std::string_view message;         // likewise; points into the results
  bool any_failed = false;
};

// "Same code" compares what a client sees (ErrorTraits::wire_code), not our finer ErrorKind. No results: nothing
// failed. Any thread.
ReplySummary Summarise(std::span<const InstanceResult> results);

// What a client is told of results[index], a failed one among several: shortened, and with the instance's number if it
// failed in a stage of add_stage. (Not part of the text before, or no two failures would be alike.)
std::string InstanceMessage(std::span<const InstanceResult> results, size_t index);
// At least as long as InstanceMessage() of this result.
size_t MaxInstanceMessage(const InstanceResult& result);

// The server's own faults are worth a line in its log; what the client or its user's code did wrong is told to them.
inline bool IsServersFault(ErrorKind kind) {
  return kind == ErrorKind::kInternal || kind == ErrorKind::kWorkerUnavailable;
}

}  // namespace msserving
