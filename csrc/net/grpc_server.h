// gRPC on HTTP/2: what nghttp2 leaves to us. One GrpcServer per event loop and listening socket. Unary calls are the
// fast way; calls with a stream of messages are for what is small and seldom (health, reflection).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/byte_budget.h"
#include "base/unique_fd.h"
#include "net/buffer.h"
#include "net/event_loop.h"

namespace msserving {

class TlsContext;  // net/tls.h

enum class GrpcStatus : int {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

// One call whose whole (decompressed) message has arrived. Lives until Reply(), Fail() or OnCancelled() returns.
class GrpcCall {
 public:
  std::string_view path() const { return path_; }
  std::span<const uint8_t> message() const { return message_.bytes(); }
  // The client's x-request-id if it is sane, else one made up. Errors carry it in their metadata.
  std::string_view request_id();
  // On RealClock(); kNoDeadline if the client set none. The server itself ends the call then: OnCancelled().
  int64_t deadline_ns() const { return deadline_ns_; }

  // Exactly one of these, at any later time, on the loop's thread; also from inside OnCall().
  void Reply(OutgoingBody message);
  void ReplyWithError(OutgoingBody message);  // an error inside of the message: the reply carries request_id() as well
  void Fail(GrpcStatus status, std::string_view message);

  // For a call that is refused because there are too many: what the client sends next may be gathered for a moment,
  // see Connection::GatherInput(). Before Fail().
  void GatherInput();

  EventLoop& loop();
  void* context = nullptr;  // the service's own

 protected:
  friend class Http2Connection;
  std::string path_;
  std::string request_id_;
  Buffer message_;
  int64_t deadline_ns_ = kNoDeadline;
};

// One call of a streaming method, from its headers to Finish() or OnCancelled(). All on the loop's thread.
class GrpcStream {
 public:
  // A client that leaves more than this unread is not worth waiting for.
  static constexpr size_t kMaxUnsentBytes = 1 << 20;
  // Of one received message, decompressed; more ends the call with RESOURCE_EXHAUSTED.
  static constexpr size_t kMaxMessageBytes = 64 << 10;

  std::string_view path() const;
  // Copies and sends one message. False: more than kMaxUnsentBytes would wait; the call should be finished.
  bool Send(std::span<const uint8_t> message);
  // What is sent and has not left yet.
  size_t unsent_bytes() const;
  // Ends the call, after what was sent. Not from OnCancelled(). The stream is gone for the service with this.
  void Finish(GrpcStatus status, std::string_view message);

  EventLoop& loop();
  void* context = nullptr;  // the service's own

 protected:
  friend class Http2Connection;
  GrpcStream() = default;
  ~GrpcStream() = default;
};

// As GrpcService: only std::bad_alloc may be thrown. Send() and Finish() may be called from inside.
class GrpcStreamService {
 public:
  // The client's next message, valid during this call.
  virtual void OnMessage(GrpcStream* stream, std::span<const uint8_t> message) = 0;
  // The client sends no more.
  virtual void OnMessagesEnd(GrpcStream* stream) = 0;
  // The server drains: Finish() soon, or the drain's time-out passes.
  virtual void OnDrain(GrpcStream* stream) = 0;
  // Cancelled by the peer, deadline passed or connection gone. The stream ends with this.
  virtual void OnCancelled(GrpcStream* stream) = 0;

 protected:
  ~GrpcStreamService() = default;
};

// Only std::bad_alloc may be thrown from these; it ends the connection.
class GrpcService {
 public:
  // False: no such path; the server answers UNIMPLEMENTED before it takes any message bytes.
  virtual bool HasMethod(std::string_view path) const = 0;
  // Who takes the calls of a streaming method; null: the method is unary. Asked once a call, after HasMethod().
  virtual GrpcStreamService* Streaming(std::string_view) { return nullptr; }
  // The headers of a unary call are there, its message is not. A call that could not be taken whatever is in its
  // message may end here with Fail(): the message is then neither kept nor waited for, and no OnCall() follows.
  virtual void OnHeaders(GrpcCall*) {}
  virtual void OnCall(GrpcCall* call) = 0;
  // Cancelled by the peer, deadline passed or connection gone; the server answers what is to be answered. The call
  // ends with this.
  virtual void OnCancelled(GrpcCall* call) = 0;

 protected:
  ~GrpcService() = default;
};

struct GrpcServerOptions {
  size_t max_receive_bytes = size_t{100} << 20;  // of one decompressed message; more: RESOURCE_EXHAUSTED
  size_t max_send_bytes = size_t{100} << 20;
  uint32_t max_concurrent_streams = 1024;            // per connection
  size_t max_connections = 10'000;                   // of all servers that share `connections`
  std::shared_ptr<std::atomic<size_t>> connections;  // how many there are; null: a count of its own
  // What messages being received or worked on and replies take; more is refused. Null: one of its own.
  std::shared_ptr<ByteBudget> bytes_in_flight;
  // Of bytes_in_flight, what one connection may hold, if it is not a single message. Replies to calls that run by then
  // come on top.
  double connection_bytes_share = 0.25;
  size_t max_header_bytes = 16 << 10;  // of one request, all headers together
  uint32_t stream_window_bytes = 4 << 20;
  uint32_t connection_window_bytes = 16 << 20;
  int64_t idle_timeout_ns = 0;                             // 0: an idle connection may stay
  int64_t incomplete_timeout_ns = 100 * kNanosPerSecond;   // a request that has begun must be complete by then
  int64_t slow_reader_timeout_ns = 100 * kNanosPerSecond;  // a reply must make progress within this
  // Of one connection, in the long run: streams reset by either side; PING, SETTINGS, PRIORITY and empty DATA frames
  // beyond those that replies call for. Four seconds' and ten seconds' worth may come at once.
  uint32_t max_resets_per_second = 1000;
  uint32_t max_control_frames_per_second = 100;
};

// All methods on the loop's thread; the loop must outlive it, and neither is destroyed from inside a service's method.
// A request is a POST of application/grpc, messages are plain, gzip or deflate; a missing "te" is forgiven. A unary
// reply is gzip if its request was and the client accepts it. Peers that flood (pings, settings, empty frames, resets)
// get GOAWAY with ENHANCE_YOUR_CALM.
class GrpcServer {
 public:
  GrpcServer(EventLoop* loop, UniqueFd listening_socket, const GrpcServerOptions& options, GrpcService* service,
             std::shared_ptr<TlsContext> tls);  // tls may be null
  ~GrpcServer();                                // closes every connection at once; calls end with OnCancelled()

  // Graceful end: no new connections, GOAWAY to the old ones, running calls go on; new streams are refused.
  void Drain();
  size_t connections() const;
  // In flight. While draining, a connection that has not yet been told its last stream may bring more: it counts as
  // one.
  size_t calls() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace msserving
