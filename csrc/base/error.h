// Every way a request can fail, and the one table that says how each failure reaches a client.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace msserving {

enum class ErrorKind : uint8_t {
  kOk = 0,
  kOverloaded,           // a queue or memory limit is reached; try again later
  kInvalidInput,         // the request's tensors or JSON do not fit the method
  kStageFailed,          // a user's Python function or the model failed on this instance
  kCallFailed,           // the same in a stage of add_stage, whose failures are called "Call ... Failed"
  kInternal,             // a defect or an exhausted resource of this server
  kWorkerUnavailable,    // the worker died and the request could not be given to another
  kServableUnavailable,  // servable, version or method unknown, or has no worker now
  kMethodUnavailable,    // the servable is there, its method is not
  kDeadlineExceeded,
  kCancelled,
  kMessageTooLarge,
  kMethodNotAllowed,  // REST: another verb than POST
  kUnauthenticated,
  kTimedOut,  // longer in the user's code or the model than the method allows
  kCount,     // number of kinds, not a kind
};

// How one kind is told. Application failures (`in_reply`) travel inside a PredictReply with gRPC status 0, as
// documented; the others are the transport's and travel as a gRPC status: what clients and proxies retry, count or
// back off from without reading a reply.
struct ErrorTraits {
  const char* name;  // for logs and metrics, e.g. "invalid_input"
  int wire_code;     // ErrorMsg.error_code
  int grpc_status;
  int http_status;
  bool in_reply;
};

const ErrorTraits& TraitsOf(ErrorKind kind);

// An outcome with its reason. The success value allocates nothing.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(ErrorKind kind, std::string message) : kind_(kind), message_(std::move(message)) {}
  static Status Ok() { return {}; }

  bool ok() const { return kind_ == ErrorKind::kOk; }
  ErrorKind kind() const { return kind_; }
  const std::string& message() const { return message_; }

 private:
  ErrorKind kind_ = ErrorKind::kOk;
  std::string message_;
};

// A server-made message longer than 384 bytes keeps its first and last 192 around "...".
// Cuts fall on UTF-8 character borders.
std::string Shorten(std::string_view message);

}  // namespace msserving
