#include "protocol/rest_service.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "net/event_loop.h"
#include "protocol/json_reply.h"
#include "protocol/reply_summary.h"

namespace msserving {
namespace {

constexpr std::string_view kJson = "application/json";
constexpr size_t kKeptParserBytes = size_t{4} << 20;
constexpr size_t kKeptTensors = 8192;

RateLimit server_faults;

void LogFault(HttpCall* call, ErrorKind kind, std::string_view message) {
  if (IsServersFault(kind)) {
    MSSERVING_LOG_LIMITED(
        server_faults, call->loop().now_ns(), kWarning,
        "Request " << call->request_id() << " failed, " << TraitsOf(kind).name << ": " << Shorten(message));
  }
}

OutgoingBody ErrorBodyOf(EventLoop* loop, std::string_view message) {
  OutgoingBody body;
  body.encoded = loop->buffers().Acquire(message.size() + 64);
  EncodeJsonError(message, &body.encoded);
  return body;
}

// The header lines that an error's status asks for.
std::string_view ExtraHeaders(int status) {
  switch (status) {
    case 405: return "Allow: POST\r\n";
    case 429:
    case 503: return "Retry-After: 1\r\n";
    default: return {};
  }
}

// What a reply's text will take, about: numbers are longer than their bytes.
size_t EstimateSize(std::span<const InstanceResult> results) {
  size_t size = 64;
  for (const InstanceResult& result : results) {
    size += 64 + result.message.size();
    for (const TensorView& tensor : result.outputs) {
      size += 32 + (IsText(tensor.dtype) ? tensor.bytes * 3 / 2 : tensor.bytes * 3);
    }
  }
  return size;
}

}  // namespace

// One accepted request, from Submit() to its reply or cancellation. Used again and again.
class RestService::Pending final : public ReplySink {
 public:
  explicit Pending(RestService* service) : service_(service) {}

  void Begin(HttpCall* call, const MethodSignature* signature) {
    call_ = call;
    call->context = this;
    signature_ = signature;
  }

  RequestTicket* ticket() { return &ticket_; }

  // The call ends; from here on it does not know this object.
  HttpCall* End() {
    HttpCall* call = std::exchange(call_, nullptr);
    call->context = nullptr;
    ticket_ = 0;
    service_->idle_.push_back(this);
    return call;
  }

  void OnReply(Reply reply) override {
    const ReplySummary summary = Summarise(reply.results);
    OutgoingBody body;
    body.encoded = call_->loop().buffers().Acquire(EstimateSize(reply.results));
    EncodeJsonReply(*signature_, reply.results, summary, &body.encoded);
    const int status = summary.whole_failed ? TraitsOf(summary.kind).http_status : 200;
    if (summary.whole_failed) {
      LogFault(call_, summary.kind, summary.message);
    }
    reply.memory.reset();
    End()->Reply(status, kJson, std::move(body), ExtraHeaders(status));
  }

 private:
  RestService* service_;
  HttpCall* call_ = nullptr;
  const MethodSignature* signature_ = nullptr;
  RequestTicket ticket_ = 0;
};

RestService::RestService(Dispatcher* dispatcher, HealthSource* health) : dispatcher_(dispatcher), health_(health) {}

RestService::~RestService() = default;

RestService::Pending* RestService::Acquire() {
  if (idle_.empty()) {
    pending_.emplace_back(this);
    idle_.reserve(pending_.size());
    return &pending_.back();
  }
  Pending* pending = idle_.back();
  idle_.pop_back();
  return pending;
}

void RestService::OnRequest(HttpCall* call) {
  if (AnswerHealth(call)) {
    return;
  }
  if (call->method() != "POST") {
    ReplyError(call, ErrorKind::kMethodNotAllowed,
               "Only POST is supported, not " + std::string(call->method()) + "; health checks are GET /health/live " +
                   "and /health/ready");
    return;
  }
  Predict(call);
}

void RestService::OnCancelled(HttpCall* call) {
  auto* pending = static_cast<Pending*>(call->context);
  if (pending != nullptr) {
    dispatcher_->Cancel(*pending->ticket());
    pending->End();
  }
}

Status RestService::Decode(HttpCall* call, MethodTarget* target) {
  if (call->body().empty()) {
    return {ErrorKind::kInvalidInput, "The http message is empty; its body has to be JSON: {\"instances\": ...}"};
  }
  Status status = ParseRestUrl(call->target(), &url_);
  if (status.ok()) {
    status = dispatcher_->Find(url_.servable, url_.version, url_.method, kNoDeadline, target);
  }
  if (!status.ok()) {
    if (status.kind() == ErrorKind::kOverloaded) {
      return status;  // no more work for this request
    }
    Status body_status = parser_.Validate(call->body());
    return body_status.ok() ? status : body_status;
  }
  return parser_.Parse(call->body(), *target->signature, &instances_);
}

void RestService::Predict(HttpCall* call) {
  MethodTarget target;
  Status status = Decode(call, &target);
  if (status.ok()) {
    Pending* pending = Acquire();
    pending->Begin(call, signatures_.Keep(*target.signature));
    status = dispatcher_->Submit(target, instances_, kNoDeadline, pending, pending->ticket());
    if (!status.ok()) {
      pending->End();
    }
  }
  instances_.Clear();
  if (instances_.tensors.capacity() > kKeptTensors) {
    std::vector<TensorView>().swap(instances_.tensors);
  }
  parser_.Trim(kKeptParserBytes);
  if (!status.ok()) {
    ReplyError(call, status.kind(), status.message());
  }
}

// What is not served is not there (404) once everything is: the client need not come again. Before, and while a
// servable has no worker, it should (503).
void RestService::ReplyError(HttpCall* call, ErrorKind kind, std::string_view message) {
  LogFault(call, kind, message);
  if (kind == ErrorKind::kOverloaded && dispatcher_->long_queue()) {
    call->GatherInput();
  }
  const bool later = kind == ErrorKind::kServableUnavailable && !health_->ready();
  const int status = later ? 503 : TraitsOf(kind).http_status;
  call->Reply(status, kJson, ErrorBodyOf(&call->loop(), message), ExtraHeaders(status));
}

bool RestService::AnswerHealth(HttpCall* call) {
  const std::string_view path = call->target().substr(0, call->target().find('?'));
  const bool live = path == "/health/live";
  if ((!live && path != "/health/ready") || (call->method() != "GET" && call->method() != "HEAD")) {
    return false;
  }
  const bool good = live ? health_->live() : health_->ready();
  const std::string_view text = good ? R"({"status":"ok"})" : R"({"status":"unavailable"})";
  OutgoingBody body;
  body.encoded = call->loop().buffers().Acquire(text.size());
  body.encoded.Append(text.data(), text.size());
  call->Reply(good ? 200 : 503, kJson, std::move(body));
  return true;
}

std::string RestService::ErrorBody(int, std::string_view reason) {
  Buffer body;
  EncodeJsonError(reason, &body);
  return {body.data(), body.data() + body.size()};
}

}  // namespace msserving
