#include "protocol/health_service.h"

#include <charconv>

#include "protocol/wire.h"

namespace msserving {
namespace {

constexpr std::string_view kService = "mindspore.serving.proto.MSService";
constexpr std::string_view kMalformed = "The request is not a well-formed HealthCheckRequest message";

// HealthCheckRequest has service 1: string.
bool ParseName(std::span<const uint8_t> message, std::string_view* name) {
  *name = {};
  for (wire::Reader reader(message); !reader.done();) {
    uint32_t tag;
    std::span<const uint8_t> bytes;
    bool good = reader.ReadTag(&tag);
    if (good && tag == wire::Tag(1, wire::Type::kBytes)) {
      good = reader.ReadBytes(&bytes);
      *name = wire::AsText(bytes);
    } else {
      good = good && reader.Skip(tag);
    }
    if (!good) {
      return false;
    }
  }
  return true;
}

// "SERVABLE" or "SERVABLE/VERSION", a version being 1 or more without leading zeros.
bool ParseServable(std::string_view name, std::string_view* servable, uint64_t* version) {
  const size_t slash = name.find('/');
  *servable = name.substr(0, slash);
  *version = 0;
  if (slash == std::string_view::npos) {
    return true;
  }
  const std::string_view digits = name.substr(slash + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), *version);
  return error == std::errc() && end == digits.data() + digits.size() && digits[0] != '0';
}

}  // namespace

HealthService::~HealthService() {
  if (loop_ != nullptr) {
    loop_->CancelTimer(timer_);
  }
}

HealthService::Serving HealthService::Of(std::string_view name) {
  if (name.empty() || name == kService) {
    return health_->ready() ? Serving::kServing : Serving::kNotServing;
  }
  std::string_view servable;
  uint64_t version;
  if (!ParseServable(name, &servable, &version)) {
    return Serving::kServiceUnknown;
  }
  switch (health_->servable(servable, version)) {
    case ServableHealth::kServing: return Serving::kServing;
    case ServableHealth::kNotServing: return Serving::kNotServing;
    case ServableHealth::kUnknown: break;
  }
  return Serving::kServiceUnknown;
}

void HealthService::Check(GrpcCall* call) {
  std::string_view name;
  if (!ParseName(call->message(), &name)) {
    call->Fail(GrpcStatus::kInvalidArgument, kMalformed);
    return;
  }
  const Serving serving = Of(name);
  if (serving == Serving::kServiceUnknown) {
    call->Fail(GrpcStatus::kNotFound, "Unknown service; known are \"\", \"" + std::string(kService) +
                                          "\", and \"SERVABLE\" and \"SERVABLE/VERSION\" of what is served");
    return;
  }
  uint8_t encoded[2];
  wire::WriteNumber(encoded, 1, static_cast<uint64_t>(serving));  // HealthCheckResponse has status 1: enum
  OutgoingBody body;
  body.encoded = call->loop().buffers().Acquire(sizeof(encoded));
  body.encoded.Append(encoded, sizeof(encoded));
  call->Reply(std::move(body));
}

void HealthService::OnMessage(GrpcStream* stream, std::span<const uint8_t> message) {
  std::string_view name;
  if (stream->context != nullptr) {
    Forget(stream);
    stream->Finish(GrpcStatus::kInvalidArgument, "Watch takes one request");
  } else if (!ParseName(message, &name)) {
    stream->Finish(GrpcStatus::kInvalidArgument, kMalformed);
  } else if (watchers_.size() >= kMaxWatchers) {
    stream->Finish(GrpcStatus::kResourceExhausted,
                   "there are " + std::to_string(kMaxWatchers) + " health watchers already");
  } else {
    watchers_.push_front({stream, std::string(name), Serving::kUnknown, {}});
    Watcher* watcher = &watchers_.front();
    watcher->self = watchers_.begin();
    stream->context = watcher;
    Tell(watcher, Of(name));
    ScheduleLook(&stream->loop());
  }
}

void HealthService::OnMessagesEnd(GrpcStream* stream) {
  if (stream->context == nullptr) {
    stream->Finish(GrpcStatus::kInvalidArgument, "Watch takes one request");
  }
}

void HealthService::OnDrain(GrpcStream* stream) {
  if (stream->context != nullptr) {
    Tell(static_cast<Watcher*>(stream->context), Serving::kNotServing);
    Forget(stream);
  }
  stream->Finish(GrpcStatus::kUnavailable, "the server is shutting down");
}

void HealthService::OnCancelled(GrpcStream* stream) { Forget(stream); }

void HealthService::Forget(GrpcStream* stream) {
  if (stream->context != nullptr) {
    watchers_.erase(static_cast<Watcher*>(stream->context)->self);
    stream->context = nullptr;
  }
}

void HealthService::Tell(Watcher* watcher, Serving serving) {
  // A client that has not taken the last change yet is told the newest one later, not all of them.
  if (serving == watcher->told || watcher->stream->unsent_bytes() > 0) {
    return;
  }
  uint8_t encoded[2];
  wire::WriteNumber(encoded, 1, static_cast<uint64_t>(serving));
  if (watcher->stream->Send({encoded, sizeof(encoded)})) {
    watcher->told = serving;
  }
}

void HealthService::ScheduleLook(EventLoop* loop) {
  loop_ = loop;
  if (timer_ != 0) {
    return;
  }
  timer_ = loop->AddTimer(loop->now_ns() + kWatchPeriodNs, [this] {
    timer_ = 0;
    for (Watcher& watcher : watchers_) {
      Tell(&watcher, Of(watcher.name));
    }
    if (!watchers_.empty()) {
      ScheduleLook(loop_);
    }
  });
}

}  // namespace msserving
