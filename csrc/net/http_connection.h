// One HTTP/1.1 connection: llhttp on one side, calls to the service on the other. Private to the HTTP server.
#pragma once

#include <llhttp.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "net/compression.h"
#include "net/connection.h"
#include "net/http_server.h"
#include "net/request_id.h"

namespace msserving {

class HttpConnection;

// A request and its reply, from the first byte received to the last one handed to the socket. Used again and again.
class HttpExchange final : public HttpCall {
 public:
  // Ready for another request.
  void Reset();

 private:
  friend class HttpCall;
  friend class HttpConnection;
  enum class State { kReceiving, kServing, kAnswered };

  State state_ = State::kReceiving;
  HttpConnection* connection_ = nullptr;
  HttpExchange* next_ = nullptr;  // the connection's next request
  bool keep_alive_ = true;        // what the request allows
  bool http_1_0_ = false;
  bool wants_continue_ = false;  // "Expect: 100-continue" that has not been answered

  ByteCharge charge_;            // for the body
  std::string accept_encoding_;  // as the request says

  int status_ = 0;
  std::string reply_type_;
  std::string extra_headers_;
  OutgoingBody reply_;
};

// llhttp's events, on their way to a connection.
void SetHttpCallbacks(llhttp_settings_t* settings);

// What all connections of a server share. Owned by the server, outlives its connections.
struct HttpShared {
  EventLoop& loop;
  const HttpServerOptions options;  // nothing in it is null
  HttpService& service;
  llhttp_settings_t settings;
  Compression compression;
  RequestIds request_ids;
  bool draining = false;
  size_t calls = 0;  // given to the service and not yet answered
  HttpConnection* first = nullptr;
  size_t connections = 0;
  std::vector<std::unique_ptr<HttpExchange>> idle_exchanges;

  HttpShared(EventLoop* event_loop, const HttpServerOptions& server_options, HttpService* http_service);
  // "Date: ...\r\n", made anew once a second.
  std::string_view DateLine();
  char date_line[64];
  size_t date_size = 0;
  int64_t date_until_ns = INT64_MIN;
  HttpExchange* AcquireExchange();
  void ReleaseExchange(HttpExchange* exchange);
};

// Deletes itself once closed.
class HttpConnection final : public Connection {
 public:
  HttpConnection(HttpShared* shared, UniqueFd socket, const std::shared_ptr<TlsContext>& tls);
  // Ends its calls with OnCancelled().
  ~HttpConnection() override;

  void Begin() { Start(); }
  // Answers 503 to whatever comes, and closes.
  void BeginRefused();
  void Reply(HttpExchange* exchange, int status, std::string_view content_type, OutgoingBody body,
             std::string_view extra_headers);
  // The server is to end: closes if idle, else says so in the last reply.
  void Drain();
  // Called now and then: ends what has taken too long.
  void CheckTimeouts(int64_t now_ns);
  HttpConnection* next() const { return next_; }
  std::string MakeRequestId() { return shared_.request_ids.Next(); }

 private:
  friend struct HttpCallbacks;

  void OnBytes(std::span<const uint8_t> bytes) override;
  void OnEnd() override;
  void Produce() override;
  void OnClosed() override;

  // llhttp's events. Non-zero stops the parser.
  int MessageBegin();
  int Url(std::string_view part);
  int HeaderField(std::string_view part);
  int HeaderValue(std::string_view part);
  int HeaderValueComplete();
  int HeadersComplete();
  int Body(std::string_view part);
  int MessageComplete();

  std::string* ValueOf(std::string_view name);
  // False: they are too many, the request has been rejected.
  bool CountHeaderBytes(size_t size);
  bool CheckHeaderBytes();
  bool InflateBody();
  void CompressReply(HttpExchange* exchange, size_t size);
  void Execute(std::span<const uint8_t> bytes);
  // Answers the request being received with an error, after those before it; nothing more is read.
  void Reject(int status, std::string_view reason);
  bool MayReadMore() const;
  void ResumeParsing();
  void WriteReply(HttpExchange* exchange, bool last);
  HttpExchange* Append();
  void PopFront();
  bool idle() const { return front_ == nullptr; }

  HttpShared& shared_;
  ByteShare memory_;
  HttpConnection* next_ = nullptr;
  HttpConnection* previous_ = nullptr;

  llhttp_t parser_;
  HttpExchange* front_ = nullptr;  // oldest request in flight
  HttpExchange* back_ = nullptr;
  HttpExchange* receiving_ = nullptr;  // back_ or null
  size_t in_flight_ = 0;
  size_t in_flight_bytes_ = 0;  // of complete bodies

  bool input_over_ = false;  // whatever else arrives is ignored
  bool in_headers_ = false;
  // All of the bytes being parsed may belong to the headers of one request: none has begun in them.
  bool within_headers_ = false;
  // Two counts of the same headers; the limit holds for both. Of what the parser tells; and of what has come: what the
  // parser told of the bytes in which the request began, and all bytes after those.
  size_t header_bytes_ = 0;
  size_t header_bytes_received_ = 0;
  char header_name_[16];
  size_t header_name_size_ = 0;  // beyond the array: no name that matters
  bool value_began_ = false;
  std::string expect_;
  std::string content_encoding_;
  bool body_is_gzip_ = false;
  Buffer unread_;  // received, but not parsed while MayReadMore() is false
  TimerId resume_timer_ = 0;
  const int64_t accepted_ns_;
  int64_t idle_since_ns_;
  int64_t received_since_ns_ = 0;  // when the request being received began
};

}  // namespace msserving
