// HTTP/1.1 on llhttp: keep-alive, pipelining (replies in order), chunked bodies, Expect: 100-continue, gzip both ways.
// One HttpServer per event loop and listening socket.
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

// One request whose whole body has arrived. Lives until Reply() or OnCancelled() returns.
class HttpCall {
 public:
  std::string_view method() const { return method_; }  // "POST"
  std::string_view target() const { return target_; }  // as received: path and query
  std::string_view content_type() const { return content_type_; }
  // The client's X-Request-Id if it is sane, else one made up. Replies of 400 and above carry it.
  std::string_view request_id();
  // Without its gzip encoding. Has Buffer::kPadding readable bytes behind it.
  std::span<const uint8_t> body() const { return body_.bytes(); }

  // Exactly once, at any later time, on the loop's thread; also from inside OnRequest(). `extra_headers` are whole
  // lines, each "Name: value\r\n"; Content-Length, Content-Type, Content-Encoding, Date, X-Request-Id and Connection
  // are the server's own. A reply of status 200 with kGzipFrom to kGzipUpTo bytes is sent as gzip if the client takes
  // it and it helps.
  void Reply(int status, std::string_view content_type, OutgoingBody body, std::string_view extra_headers = {});

  // For a call that is refused because there are too many: what the client sends next may be gathered for a moment,
  // see Connection::GatherInput(). Before Reply().
  void GatherInput();

  EventLoop& loop();
  void* context = nullptr;  // the service's own

  static constexpr size_t kGzipFrom = 1 << 10;
  static constexpr size_t kGzipUpTo = 256 << 10;  // more would keep the event loop busy for too long

 protected:
  friend class HttpConnection;
  HttpCall() = default;
  ~HttpCall() = default;

  std::string_view method_;
  std::string target_;
  std::string content_type_;
  std::string request_id_;
  Buffer body_;
};

class HttpService {
 public:
  virtual void OnRequest(HttpCall* call) = 0;
  // The connection is gone; the call ends with this.
  virtual void OnCancelled(HttpCall* call) = 0;
  // The body of an error that the server itself answers: 400 bad HTTP, 408 too slow, 413 body too large, 415 unknown
  // content encoding, 417 unknown expectation, 429 too many bytes in flight, 431 headers too large, 503 too many
  // connections. Sent with content type application/json.
  virtual std::string ErrorBody(int status, std::string_view reason) = 0;

 protected:
  ~HttpService() = default;
};

struct HttpServerOptions {
  size_t max_body_bytes = size_t{100} << 20;
  size_t max_header_bytes = 16 << 10;                // request line and headers together
  size_t max_connections = 10'000;                   // of all servers that share `connections`
  std::shared_ptr<std::atomic<size_t>> connections;  // how many there are; null: a count of its own
  // What bodies being received or worked on and replies take; more is refused. Null: one of its own.
  std::shared_ptr<ByteBudget> bytes_in_flight;
  // Of bytes_in_flight, what one connection may hold, if it is not a single body. No more requests are read from it
  // while it does.
  double connection_bytes_share = 0.25;
  // Requests of one connection in flight; more are not read. Nor are they while those have max_body_bytes of bodies.
  size_t max_pipelined = 64;
  int64_t idle_timeout_ns = 100 * kNanosPerSecond;         // 0: an idle connection may stay
  int64_t incomplete_timeout_ns = 100 * kNanosPerSecond;   // a request that has begun must be complete by then
  int64_t slow_reader_timeout_ns = 100 * kNanosPerSecond;  // a reply must make progress within this
};

// All methods on the loop's thread.
class HttpServer {
 public:
  HttpServer(EventLoop* loop, UniqueFd listening_socket, const HttpServerOptions& options, HttpService* service,
             std::shared_ptr<TlsContext> tls);  // tls may be null
  ~HttpServer();                                // closes every connection at once; calls end with OnCancelled()

  // Graceful end: no new connections, idle ones are closed, busy ones answer with Connection: close.
  void Drain();
  size_t connections() const;
  size_t calls() const;  // in flight

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace msserving
