// A request and its reply in memory, and what all connections of an HttpServer share.
#include <memory>
#include <string>
#include <utility>

#include "net/http_connection.h"

namespace msserving {
namespace {

constexpr uint64_t kOwnBytesInFlight = uint64_t{2} << 30;
constexpr size_t kIdleExchanges = 4096;
constexpr size_t kKeptText = 4096;  // capacity that an idle exchange keeps in each of its strings

HttpServerOptions WithOwnCounts(HttpServerOptions options) {
  if (options.connections == nullptr) {
    options.connections = std::make_shared<std::atomic<size_t>>(0);
  }
  if (options.bytes_in_flight == nullptr) {
    options.bytes_in_flight = std::make_shared<ByteBudget>(kOwnBytesInFlight);
  }
  return options;
}

void ClearText(std::string* text) {
  text->clear();
  if (text->capacity() > kKeptText) {
    std::string().swap(*text);
  }
}

}  // namespace

void HttpExchange::Reset() {
  context = nullptr;
  method_ = {};
  ClearText(&target_);
  ClearText(&content_type_);
  ClearText(&request_id_);
  ClearText(&accept_encoding_);
  body_ = Buffer();
  charge_.Reset();
  state_ = State::kReceiving;
  connection_ = nullptr;
  next_ = nullptr;
  keep_alive_ = true;
  http_1_0_ = false;
  wants_continue_ = false;
  ClearText(&reply_type_);
  ClearText(&extra_headers_);
  reply_ = OutgoingBody();
}

void HttpCall::Reply(int status, std::string_view content_type, OutgoingBody body, std::string_view extra_headers) {
  auto* exchange = static_cast<HttpExchange*>(this);
  exchange->connection_->Reply(exchange, status, content_type, std::move(body), extra_headers);
}

std::string_view HttpCall::request_id() {
  if (request_id_.empty()) {
    request_id_ = static_cast<HttpExchange*>(this)->connection_->MakeRequestId();
  }
  return request_id_;
}

void HttpCall::GatherInput() { static_cast<HttpExchange*>(this)->connection_->GatherInput(); }

EventLoop& HttpCall::loop() { return static_cast<HttpExchange*>(this)->connection_->loop(); }

HttpShared::HttpShared(EventLoop* event_loop, const HttpServerOptions& server_options, HttpService* http_service)
    : loop(*event_loop), options(WithOwnCounts(server_options)), service(*http_service) {
  SetHttpCallbacks(&settings);
}

HttpExchange* HttpShared::AcquireExchange() {
  if (idle_exchanges.empty()) {
    return new HttpExchange();
  }
  HttpExchange* exchange = idle_exchanges.back().release();
  idle_exchanges.pop_back();
  return exchange;
}

void HttpShared::ReleaseExchange(HttpExchange* exchange) {
  std::unique_ptr<HttpExchange> owner(exchange);
  if (idle_exchanges.size() < kIdleExchanges) {
    exchange->Reset();
    idle_exchanges.push_back(std::move(owner));
  }
}

}  // namespace msserving
