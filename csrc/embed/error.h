// How a call of the embedding API fails.
#pragma once

#include <stdexcept>
#include <string>

#include "mindspore_serving/server_c.h"

namespace msserving::embed {

// Thrown in this folder alone; server_c.cc hands it over as an MsServingError.
class EmbedError : public std::runtime_error {
 public:
  EmbedError(int code, const std::string& message) : std::runtime_error(message), code_(code) {}
  int code() const { return code_; }

 private:
  int code_;  // MS_SERVING_INVALID …
};

[[noreturn]] inline void ThrowInvalid(const std::string& message) { throw EmbedError(MS_SERVING_INVALID, message); }
[[noreturn]] inline void ThrowFailed(const std::string& message) { throw EmbedError(MS_SERVING_FAILED, message); }
[[noreturn]] inline void ThrowStopped(const std::string& message) { throw EmbedError(MS_SERVING_STOPPED, message); }

}  // namespace msserving::embed
