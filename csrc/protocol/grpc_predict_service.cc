#include "protocol/grpc_predict_service.h"

#include <string>
#include <utility>

#include "base/log.h"
#include "net/event_loop.h"
#include "protocol/reply_summary.h"

namespace msserving {
namespace {

constexpr size_t kKeptTensors = 8192;

RateLimit server_faults;

class KeepReplyMemory final : public KeepAlive {
 public:
  explicit KeepReplyMemory(ReplyMemoryPtr memory) : memory_(std::move(memory)) {}

 private:
  ReplyMemoryPtr memory_;
};

void Fail(GrpcCall* call, ErrorKind kind, std::string_view message) {
  call->Fail(static_cast<GrpcStatus>(TraitsOf(kind).grpc_status), Shorten(message));
}

// Whole-request failure, in the reply or as the call's status, whichever the kind wants.
void ReplyError(GrpcCall* call, std::span<const uint8_t> spec, ErrorKind kind, std::string_view message) {
  if (IsServersFault(kind)) {
    MSSERVING_LOG_LIMITED(
        server_faults, call->loop().now_ns(), kWarning,
        "Request " << call->request_id() << " failed, " << TraitsOf(kind).name << ": " << Shorten(message));
  }
  if (!TraitsOf(kind).in_reply) {
    Fail(call, kind, message);
    return;
  }
  OutgoingBody body;
  body.encoded = call->loop().buffers().Acquire(0);
  EncodeError(spec, kind, message, &body);
  call->ReplyWithError(std::move(body));
}

}  // namespace

// One accepted request, from Submit() to its reply or cancellation. Used again and again.
class GrpcPredictService::PredictCall final : public ReplySink {
 public:
  explicit PredictCall(GrpcPredictService* service) : service_(service) {}

  void Begin(GrpcCall* call, RequestEnvelope* envelope, const MethodSignature* signature) {
    call_ = call;
    call->context = this;
    signature_ = signature;
    joined_spec_.clear();
    spec_ = envelope->spec;
    if (!envelope->joined_spec.empty()) {
      joined_spec_.swap(envelope->joined_spec);
      spec_ = {reinterpret_cast<const uint8_t*>(joined_spec_.data()), joined_spec_.size()};
    }
  }

  // Submit() refused the request.
  void Refuse(const Status& status) {
    ReplyError(Detach(), spec_, status.kind(), status.message());
    Recycle();
  }

  void Cancel() {
    Detach();
    Recycle();
  }

  RequestTicket* ticket() { return &ticket_; }

  void OnReply(Reply reply) override {
    GrpcCall* call = Detach();
    const ReplySummary summary = Summarise(reply.results);
    if (summary.whole_failed) {
      ReplyError(call, spec_, summary.kind, summary.message);
      Recycle();
      return;
    }
    OutgoingBody body;
    body.encoded = call->loop().buffers().Acquire(0);
    EncodeReply(spec_, *signature_, reply.results, &body);
    if (body.slices.empty()) {
      reply.memory.reset();
    } else {
      body.keep_alive = std::make_unique<KeepReplyMemory>(std::move(reply.memory));
    }
    Recycle();
    call->Reply(std::move(body));
  }

 private:
  static constexpr size_t kKeptSpecBytes = 4096;

  // The call ends with its answer: from here on it does not know this context.
  GrpcCall* Detach() {
    GrpcCall* call = std::exchange(call_, nullptr);
    call->context = nullptr;
    return call;
  }

  void Recycle() {
    ticket_ = 0;
    if (joined_spec_.capacity() > kKeptSpecBytes) {
      std::string().swap(joined_spec_);
    }
    service_->idle_.push_back(this);
  }

  GrpcPredictService* service_;
  GrpcCall* call_ = nullptr;
  const MethodSignature* signature_ = nullptr;
  std::span<const uint8_t> spec_;  // in the call's message or in joined_spec_
  std::string joined_spec_;
  RequestTicket ticket_ = 0;
};

GrpcPredictService::GrpcPredictService(Dispatcher* dispatcher, HealthSource* health)
    : dispatcher_(dispatcher), health_(health) {}

GrpcPredictService::~GrpcPredictService() = default;

bool GrpcPredictService::HasMethod(std::string_view path) const {
  return path == kPredictPath || path == HealthService::kCheckPath || path == HealthService::kWatchPath ||
         path == ReflectionService::kPathV1 || path == ReflectionService::kPathV1Alpha;
}

GrpcStreamService* GrpcPredictService::Streaming(std::string_view path) {
  if (path == kPredictPath || path == HealthService::kCheckPath) {
    return nullptr;
  }
  return path == HealthService::kWatchPath ? static_cast<GrpcStreamService*>(&health_) : &reflection_;
}

void GrpcPredictService::OnHeaders(GrpcCall* call) {
  if (call->path() != kPredictPath) {
    return;
  }
  if (const Status status = dispatcher_->Full(); !status.ok()) {
    GatherIfTooMany(call, status);
    ReplyError(call, {}, status.kind(), status.message());
  }
}

void GrpcPredictService::OnCall(GrpcCall* call) {
  if (call->path() == kPredictPath) {
    Predict(call);
  } else {
    health_.Check(call);
  }
}

void GrpcPredictService::OnCancelled(GrpcCall* call) {
  auto* context = static_cast<PredictCall*>(call->context);
  if (context != nullptr) {
    dispatcher_->Cancel(*context->ticket());
    context->Cancel();
  }
}

GrpcPredictService::PredictCall* GrpcPredictService::AcquireContext() {
  if (idle_.empty()) {
    contexts_.push_back(std::make_unique<PredictCall>(this));
    idle_.reserve(contexts_.size());
    return contexts_.back().get();
  }
  PredictCall* context = idle_.back();
  idle_.pop_back();
  return context;
}

void GrpcPredictService::GatherIfTooMany(GrpcCall* call, const Status& status) {
  if (status.kind() == ErrorKind::kOverloaded && dispatcher_->long_queue()) {
    call->GatherInput();
  }
}

void GrpcPredictService::Predict(GrpcCall* call) {
  MethodTarget target;
  Status status = ParseEnvelope(call->message(), &envelope_);
  if (status.ok()) {
    status = dispatcher_->Find(envelope_.servable, envelope_.version, envelope_.method, call->deadline_ns(), &target);
  }
  if (status.ok()) {
    status = ParseInstances(envelope_, *target.signature, &instances_);
  }
  if (!status.ok()) {
    GatherIfTooMany(call, status);
    ReplyError(call, envelope_.spec, status.kind(), status.message());
  } else {
    PredictCall* context = AcquireContext();
    context->Begin(call, &envelope_, signatures_.Keep(*target.signature));
    status = dispatcher_->Submit(target, instances_, call->deadline_ns(), context, context->ticket());
    if (!status.ok()) {
      GatherIfTooMany(call, status);
      context->Refuse(status);
    }
  }
  envelope_.ShrinkIfLarge();
  instances_.Clear();
  if (instances_.tensors.capacity() > kKeptTensors) {
    std::vector<TensorView>().swap(instances_.tensors);
  }
}

}  // namespace msserving
