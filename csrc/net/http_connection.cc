// An HTTP/1.1 connection: receiving requests, time-outs, the end. Its answers are in http_replies.cc, requests as
// objects in http_exchange.cc.
#include "net/http_connection.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

namespace msserving {
namespace {

constexpr size_t kBodyAtOnce = size_t{4} << 20;  // of an announced body, what is taken before it arrives
constexpr int kStop = HPE_USER;                  // what a callback returns to end parsing

char ToLower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

bool EqualsIgnoringCase(std::string_view text, std::string_view lower) {
  return text.size() == lower.size() &&
         std::equal(text.begin(), text.end(), lower.begin(), [](char a, char b) { return ToLower(a) == b; });
}

}  // namespace

// llhttp's callbacks, on their way to the connection. Memory that runs out ends the connection: nothing may be thrown
// through llhttp.
struct HttpCallbacks {
  template <int (HttpConnection::*kEvent)()>
  static int Event(llhttp_t* parser) {
    try {
      return (static_cast<HttpConnection*>(parser->data)->*kEvent)();
    } catch (const std::bad_alloc&) {
      return kStop;
    }
  }

  template <int (HttpConnection::*kData)(std::string_view)>
  static int Data(llhttp_t* parser, const char* at, size_t size) {
    try {
      return (static_cast<HttpConnection*>(parser->data)->*kData)({at, size});
    } catch (const std::bad_alloc&) {
      return kStop;
    }
  }

  static void Set(llhttp_settings_t* settings) {
    llhttp_settings_init(settings);
    settings->on_message_begin = &Event<&HttpConnection::MessageBegin>;
    settings->on_url = &Data<&HttpConnection::Url>;
    settings->on_header_field = &Data<&HttpConnection::HeaderField>;
    settings->on_header_value = &Data<&HttpConnection::HeaderValue>;
    settings->on_header_value_complete = &Event<&HttpConnection::HeaderValueComplete>;
    settings->on_headers_complete = &Event<&HttpConnection::HeadersComplete>;
    settings->on_body = &Data<&HttpConnection::Body>;
    settings->on_message_complete = &Event<&HttpConnection::MessageComplete>;
  }
};

void SetHttpCallbacks(llhttp_settings_t* settings) { HttpCallbacks::Set(settings); }

HttpConnection::HttpConnection(HttpShared* shared, UniqueFd socket, const std::shared_ptr<TlsContext>& tls)
    : Connection(&shared->loop, std::move(socket), tls),
      shared_(*shared),
      memory_(shared->options.bytes_in_flight.get(), shared->options.connection_bytes_share),
      accepted_ns_(shared->loop.now_ns()),
      idle_since_ns_(accepted_ns_) {
  llhttp_init(&parser_, HTTP_REQUEST, &shared_.settings);
  parser_.data = this;
  next_ = shared_.first;
  if (next_ != nullptr) {
    next_->previous_ = this;
  }
  shared_.first = this;
  ++shared_.connections;
  shared_.options.connections->fetch_add(1, std::memory_order_relaxed);
}

HttpConnection::~HttpConnection() {
  loop().CancelTimer(resume_timer_);
  while (front_ != nullptr) {
    if (front_->state_ == HttpExchange::State::kServing) {
      --shared_.calls;
      shared_.service.OnCancelled(front_);
    }
    PopFront();
  }
  output().Clear();  // what it keeps is charged to memory_
  (previous_ != nullptr ? previous_->next_ : shared_.first) = next_;
  if (next_ != nullptr) {
    next_->previous_ = previous_;
  }
  --shared_.connections;
  shared_.options.connections->fetch_sub(1, std::memory_order_relaxed);
}

void HttpConnection::OnClosed() { delete this; }

void HttpConnection::BeginRefused() {
  Start();
  receiving_ = Append();
  Reject(503, "too many connections, the limit is " + std::to_string(shared_.options.max_connections));
}

// ---- receiving

bool HttpConnection::MayReadMore() const {
  return in_flight_ < shared_.options.max_pipelined &&
         in_flight_bytes_ < std::max<size_t>(shared_.options.max_body_bytes, 1) &&
         (idle() || memory_.held() < memory_.limit());
}

void HttpConnection::OnBytes(std::span<const uint8_t> bytes) {
  if (input_over_) {
    return;
  }
  if (llhttp_get_errno(&parser_) == HPE_PAUSED) {
    unread_.Append(bytes.data(), bytes.size());
    return;
  }
  Execute(bytes);
}

void HttpConnection::Execute(std::span<const uint8_t> bytes) {
  within_headers_ = in_headers_;
  const auto* const text = reinterpret_cast<const char*>(bytes.data());
  const llhttp_errno_t error = llhttp_execute(&parser_, text, bytes.size());
  if (error == HPE_OK) {
    // What the parser steps over without telling, spaces before a value, counts as well.
    if (in_headers_ && !input_over_) {
      header_bytes_received_ = within_headers_ ? header_bytes_received_ + bytes.size() : header_bytes_;
      CheckHeaderBytes();
    }
    return;
  }
  if (input_over_ || closed()) {
    return;
  }
  if (error == HPE_PAUSED) {
    const auto parsed = static_cast<size_t>(llhttp_get_error_pos(&parser_) - text);
    if (unread_.capacity() == 0) {
      unread_ = loop().buffers().Acquire(bytes.size() - parsed);
    }
    unread_.Append(text + parsed, bytes.size() - parsed);
    PauseReading();
    return;
  }
  if (static_cast<int>(error) == kStop || error == HPE_CB_MESSAGE_BEGIN || error == HPE_CB_HEADERS_COMPLETE ||
      error == HPE_CB_MESSAGE_COMPLETE || error == HPE_CB_HEADER_VALUE_COMPLETE) {
    Close();  // out of memory
    return;
  }
  const char* reason = llhttp_get_error_reason(&parser_);
  Reject(400, std::string("bad HTTP request: ") + (reason != nullptr && *reason != 0 ? reason : "cannot be parsed"));
}

void HttpConnection::ResumeParsing() {
  if (closed() || input_over_ || !MayReadMore()) {
    return;
  }
  Buffer bytes = std::move(unread_);
  unread_ = Buffer();
  llhttp_resume(&parser_);
  if (!bytes.empty()) {
    Execute(bytes.bytes());
  }
  if (!closed() && !input_over_ && unread_.empty() && llhttp_get_errno(&parser_) == HPE_OK) {
    ResumeReading();
  }
}

HttpExchange* HttpConnection::Append() {
  HttpExchange* exchange = shared_.AcquireExchange();
  exchange->connection_ = this;
  (back_ != nullptr ? back_->next_ : front_) = exchange;
  back_ = exchange;
  ++in_flight_;
  return exchange;
}

int HttpConnection::MessageBegin() {
  receiving_ = Append();
  received_since_ns_ = loop().now_ns();
  in_headers_ = true;
  within_headers_ = false;
  header_bytes_ = 0;
  header_bytes_received_ = 0;
  header_name_size_ = 0;
  value_began_ = false;
  expect_.clear();
  content_encoding_.clear();
  return 0;
}

bool HttpConnection::CountHeaderBytes(size_t size) {
  header_bytes_ += size;
  return CheckHeaderBytes();
}

bool HttpConnection::CheckHeaderBytes() {
  if (std::max(header_bytes_, header_bytes_received_) <= shared_.options.max_header_bytes) {
    return true;
  }
  Reject(431,
         "request line and headers are larger than " + std::to_string(shared_.options.max_header_bytes) + " bytes");
  return false;
}

int HttpConnection::Url(std::string_view part) {
  if (!CountHeaderBytes(part.size())) {
    return kStop;
  }
  receiving_->target_.append(part);
  return 0;
}

int HttpConnection::HeaderField(std::string_view part) {
  if (!CountHeaderBytes(part.size() + (header_name_size_ == 0 ? 4 : 0))) {  // ": " and the line's end
    return kStop;
  }
  for (size_t i = 0; i < part.size() && header_name_size_ + i < sizeof(header_name_); ++i) {
    header_name_[header_name_size_ + i] = ToLower(part[i]);
  }
  header_name_size_ += part.size();
  return 0;
}

// Where the value of a header is kept; null: nobody asks for it.
std::string* HttpConnection::ValueOf(std::string_view name) {
  switch (name.size()) {
    case 6: return name == "expect" ? &expect_ : nullptr;
    case 12:
      return name == "content-type"   ? &receiving_->content_type_
             : name == "x-request-id" ? &receiving_->request_id_
                                      : nullptr;
    case 15: return name == "accept-encoding" ? &receiving_->accept_encoding_ : nullptr;
    case 16: return name == "content-encoding" ? &content_encoding_ : nullptr;
    default: return nullptr;
  }
}

int HttpConnection::HeaderValue(std::string_view part) {
  if (!CountHeaderBytes(part.size())) {
    return kStop;
  }
  if (!in_headers_ || header_name_size_ > sizeof(header_name_)) {
    return 0;
  }
  std::string* const value = ValueOf({header_name_, header_name_size_});
  if (value != nullptr) {
    if (!std::exchange(value_began_, true)) {
      value->clear();  // given twice: the last one counts
    }
    value->append(part);
  }
  return 0;
}

int HttpConnection::HeaderValueComplete() {
  header_name_size_ = 0;
  value_began_ = false;
  return 0;
}

int HttpConnection::HeadersComplete() {
  in_headers_ = false;
  header_bytes_ = header_bytes_received_ = 0;  // trailers count anew
  parser_.upgrade = 0;  // no other protocol is spoken here; such requests are answered as if they had not asked
  receiving_->method_ = llhttp_method_name(static_cast<llhttp_method_t>(llhttp_get_method(&parser_)));
  receiving_->http_1_0_ = parser_.http_major == 1 && parser_.http_minor == 0;
  if (parser_.http_major != 1) {
    Reject(400, "bad HTTP request: HTTP/1.0 and HTTP/1.1 are spoken here");
    return kStop;
  }
  const size_t limit = shared_.options.max_body_bytes;
  const bool has_length = (parser_.flags & F_CONTENT_LENGTH) != 0;
  if (has_length && parser_.content_length > limit) {
    Reject(413, "http message is bigger than " + std::to_string(limit) + " bytes");
    return kStop;
  }
  if (!IsSaneRequestId(receiving_->request_id_)) {
    receiving_->request_id_.clear();
  }
  body_is_gzip_ = EqualsIgnoringCase(content_encoding_, "gzip") || EqualsIgnoringCase(content_encoding_, "x-gzip");
  if (!body_is_gzip_ && !content_encoding_.empty() && !EqualsIgnoringCase(content_encoding_, "identity")) {
    Reject(415, "the Content-Encoding of a request may be gzip, nothing else");
    return kStop;
  }
  const bool has_body = (has_length && parser_.content_length > 0) || (parser_.flags & F_CHUNKED) != 0;
  if (!expect_.empty() && !receiving_->http_1_0_) {
    if (!EqualsIgnoringCase(expect_, "100-continue")) {
      Reject(417, "the only expectation that can be met is 100-continue");
      return kStop;
    }
    if (has_body) {
      receiving_->wants_continue_ = true;
      ScheduleOutput();
    }
  }
  if (has_body) {
    const uint64_t announced = has_length ? parser_.content_length : 0;
    receiving_->body_ = loop().buffers().Acquire(std::min<uint64_t>(announced, kBodyAtOnce));
  }
  return 0;
}

int HttpConnection::Body(std::string_view part) {
  const size_t limit = shared_.options.max_body_bytes;
  if (part.size() > limit - receiving_->body_.size()) {
    Reject(413, "http message is bigger than " + std::to_string(limit) + " bytes");
    return kStop;
  }
  if (!receiving_->charge_.Take(&memory_, part.size())) {
    Reject(429, memory_.Refusal(part.size(), receiving_->charge_.bytes()));
    return kStop;
  }
  receiving_->wants_continue_ = false;  // it has not waited
  receiving_->body_.Append(part.data(), part.size());
  return 0;
}

// False: the request has been rejected.
bool HttpConnection::InflateBody() {
  const size_t limit = shared_.options.max_body_bytes;
  const size_t most = std::min<uint64_t>(limit, memory_.left(receiving_->charge_.bytes()));
  Buffer plain = loop().buffers().Acquire(std::min(receiving_->body_.size() * 4, most));
  switch (shared_.compression.Inflate(Encoding::kGzip, receiving_->body_.bytes(), most, &plain)) {
    case Compression::Result::kOk: break;
    case Compression::Result::kCorrupt: Reject(400, "the body is not one whole gzip stream"); return false;
    case Compression::Result::kTooLarge:
      if (most < limit) {
        Reject(429, memory_.Refusal(plain.size(), receiving_->charge_.bytes()));
      } else {
        Reject(413, "http message is bigger than " + std::to_string(limit) + " bytes");
      }
      return false;
  }
  receiving_->charge_.Reset();
  receiving_->charge_.TakeAnyway(&memory_, plain.size());
  receiving_->body_ = std::move(plain);
  return true;
}

int HttpConnection::MessageComplete() {
  if (body_is_gzip_ && !receiving_->body_.empty() && !InflateBody()) {
    return kStop;
  }
  HttpExchange* exchange = std::exchange(receiving_, nullptr);
  exchange->keep_alive_ = llhttp_should_keep_alive(&parser_) != 0;
  exchange->wants_continue_ = false;
  exchange->state_ = HttpExchange::State::kServing;
  in_flight_bytes_ += exchange->body_.size();
  exchange->body_.Reserve(1);  // so that an empty body has its padding, too
  input_over_ = !exchange->keep_alive_;
  ++shared_.calls;
  shared_.service.OnRequest(exchange);
  if (closed() || input_over_) {
    return HPE_PAUSED;
  }
  return MayReadMore() ? 0 : HPE_PAUSED;
}

void HttpConnection::OnEnd() {
  input_over_ = true;
  if (receiving_ != nullptr && receiving_->state_ == HttpExchange::State::kReceiving) {
    // Half a request: nobody waits for its answer. Those before it may still be read.
    receiving_->keep_alive_ = false;
    receiving_->state_ = HttpExchange::State::kAnswered;
    receiving_->status_ = 0;
    receiving_ = nullptr;
  }
  ScheduleOutput();
}

// ---- ends

void HttpConnection::Drain() {
  if (idle()) {
    input_over_ = true;
    ScheduleOutput();
  }
}

void HttpConnection::CheckTimeouts(int64_t now_ns) {
  if (closed()) {
    return;
  }
  const HttpServerOptions& options = shared_.options;
  if (has_unsent()) {
    if (now_ns - last_progress_ns() >= options.slow_reader_timeout_ns) {
      Close();
    }
  } else if (!established()) {
    if (now_ns - accepted_ns_ >= options.incomplete_timeout_ns) {
      Close();
    }
  } else if (idle()) {
    if (options.idle_timeout_ns > 0 && now_ns - idle_since_ns_ >= options.idle_timeout_ns) {
      input_over_ = true;
      ScheduleOutput();
    }
  } else if (receiving_ != nullptr && now_ns - received_since_ns_ >= options.incomplete_timeout_ns) {
    Reject(408, "the request was not complete within " +
                    std::to_string(options.incomplete_timeout_ns / kNanosPerMilli) + " ms");
  }
}

}  // namespace msserving
