// An HTTP/1.1 connection's answers: from the service or the server itself, in order, onto the wire.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <ctime>
#include <string>
#include <utility>

#include "base/clock.h"
#include "net/http_connection.h"

namespace msserving {
namespace {

const char* ReasonOf(int status) {
  switch (status) {
    case 200: return "OK";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 499: return "Client Closed Request";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    default: return "Status";
  }
}

bool IsSpace(char c) { return c == ' ' || c == '\t'; }

// "gzip" among the encodings of an Accept-Encoding, and not with a weight of 0.
bool AcceptsGzip(std::string_view list) {
  while (!list.empty()) {
    std::string_view entry = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), entry.size() + 1));
    std::string text;
    std::copy_if(entry.begin(), entry.end(), std::back_inserter(text), [](char c) { return !IsSpace(c); });
    const std::string_view name = std::string_view(text).substr(0, text.find(';'));
    if (name == "gzip" || name == "x-gzip") {
      const std::string_view weight = std::string_view(text).substr(name.size());
      return weight.find_first_not_of("0.", weight.starts_with(";q=") ? 3 : 0) != std::string_view::npos ||
             weight.empty();
    }
  }
  return false;
}

}  // namespace

std::string_view HttpShared::DateLine() {
  if (loop.now_ns() >= date_until_ns) {
    date_until_ns = loop.now_ns() + kNanosPerSecond;
    static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                              "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    const time_t now = WallClockSeconds();
    tm utc{};
    gmtime_r(&now, &utc);
    const int size =
        std::snprintf(date_line, sizeof(date_line), "Date: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n", kDays[utc.tm_wday],
                      utc.tm_mday, kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
    date_size = static_cast<size_t>(size);
  }
  return {date_line, date_size};
}

void HttpConnection::Reply(HttpExchange* exchange, int status, std::string_view content_type, OutgoingBody body,
                           std::string_view extra_headers) {
  --shared_.calls;
  exchange->state_ = HttpExchange::State::kAnswered;
  exchange->status_ = status;
  exchange->reply_type_.assign(content_type);
  exchange->extra_headers_.assign(extra_headers);
  in_flight_bytes_ -= exchange->body_.size();
  exchange->body_ = Buffer();
  exchange->charge_.Reset();
  exchange->reply_ = std::move(body);
  const size_t size = exchange->reply_.TotalSize();
  if (status == 200 && size >= HttpCall::kGzipFrom && size <= HttpCall::kGzipUpTo &&
      AcceptsGzip(exchange->accept_encoding_)) {
    CompressReply(exchange, size);
  }
  exchange->reply_.charge.TakeAnyway(&memory_, exchange->reply_.TotalSize());
  if (!closed()) {
    ScheduleOutput();
  }
}

void HttpConnection::CompressReply(HttpExchange* exchange, size_t size) {
  OutgoingBody packed;
  packed.encoded = loop().buffers().Acquire(size);
  shared_.compression.BeginGzip(&packed.encoded, size);
  for (BodyReader reader(&exchange->reply_); reader.left() > 0;) {
    shared_.compression.AddGzip(reader.Next(SIZE_MAX));
  }
  shared_.compression.EndGzip();
  if (packed.encoded.size() < size) {
    exchange->reply_ = std::move(packed);
    exchange->extra_headers_ += "Content-Encoding: gzip\r\nVary: Accept-Encoding\r\n";
  }
}

void HttpConnection::Reject(int status, std::string_view reason) {
  if (receiving_ == nullptr) {
    receiving_ = Append();
  }
  HttpExchange* exchange = std::exchange(receiving_, nullptr);
  input_over_ = true;
  in_headers_ = false;
  exchange->state_ = HttpExchange::State::kAnswered;
  exchange->keep_alive_ = false;
  exchange->wants_continue_ = false;
  if (!IsSaneRequestId(exchange->request_id_)) {
    exchange->request_id_.clear();  // perhaps only half of it has come
  }
  exchange->status_ = status;
  exchange->reply_type_ = "application/json";
  if (status == 429 || status == 503) {
    exchange->extra_headers_ = "Retry-After: 1\r\n";
  }
  exchange->body_ = Buffer();
  exchange->charge_.Reset();
  const std::string text = shared_.service.ErrorBody(status, reason);
  exchange->reply_.encoded = loop().buffers().Acquire(text.size());
  exchange->reply_.encoded.Append(text.data(), text.size());
  ScheduleOutput();
}

void HttpConnection::Produce() {
  while (front_ != nullptr && front_->state_ == HttpExchange::State::kAnswered) {
    if (output_full()) {
      return;  // called again
    }
    const bool last = !front_->keep_alive_ || (front_->next_ == nullptr && (shared_.draining || input_over_));
    if (front_->status_ != 0) {
      WriteReply(front_, last);
    }
    PopFront();
    if (last) {
      CloseWhenSent();
      return;
    }
  }
  if (front_ == nullptr) {
    idle_since_ns_ = loop().now_ns();
    if (input_over_) {
      CloseWhenSent();
      return;
    }
  } else if (front_->wants_continue_) {
    constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    output().Append(kContinue.data(), kContinue.size());
    front_->wants_continue_ = false;
  }
  if (llhttp_get_errno(&parser_) == HPE_PAUSED && !input_over_ && MayReadMore() && resume_timer_ == 0) {
    // Requests are handed to the service from a wake-up's beginning, not from its end.
    resume_timer_ = loop().AddTimer(loop().now_ns(), [this] {
      resume_timer_ = 0;
      ResumeParsing();
    });
  }
}

void HttpConnection::WriteReply(HttpExchange* exchange, bool last) {
  char head[256];
  char* p = head;
  const auto add = [&p](std::string_view text) { p = std::copy(text.begin(), text.end(), p); };
  add("HTTP/1.1 ");
  p = std::to_chars(p, p + 8, exchange->status_).ptr;
  add(" ");
  add(ReasonOf(exchange->status_));
  add("\r\nContent-Length: ");
  p = std::to_chars(p, p + 24, exchange->reply_.TotalSize()).ptr;
  if (last) {
    add("\r\nConnection: close");
  } else if (exchange->http_1_0_) {
    add("\r\nConnection: keep-alive");
  }
  if (!exchange->reply_type_.empty()) {
    add("\r\nContent-Type: ");
    output().Append(head, static_cast<size_t>(p - head));
    p = head;
    output().Append(exchange->reply_type_.data(), exchange->reply_type_.size());
  }
  add("\r\n");
  add(shared_.DateLine());
  output().Append(head, static_cast<size_t>(p - head));
  if (exchange->status_ >= 400) {
    const std::string_view id = exchange->request_id();
    output().Append("X-Request-Id: ", 14);
    output().Append(id.data(), id.size());
    output().Append("\r\n", 2);
  }
  output().Append(exchange->extra_headers_.data(), exchange->extra_headers_.size());
  output().Append("\r\n", 2);
  if (exchange->method_ != "HEAD") {
    output().Append(std::move(exchange->reply_));
  }
}

void HttpConnection::PopFront() {
  HttpExchange* exchange = front_;
  front_ = exchange->next_;
  if (front_ == nullptr) {
    back_ = nullptr;
  }
  if (exchange == receiving_) {
    receiving_ = nullptr;
  }
  --in_flight_;
  shared_.ReleaseExchange(exchange);
}

}  // namespace msserving
