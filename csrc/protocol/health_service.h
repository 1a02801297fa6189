// grpc.health.v1.Health: Check, and Watch, which tells every change.
// A name is "" for the whole server, "mindspore.serving.proto.MSService" for the same, "SERVABLE" or
// "SERVABLE/VERSION".
#pragma once

#include <list>
#include <span>
#include <string>
#include <string_view>

#include "net/grpc_server.h"
#include "servable/health.h"

namespace msserving {

// One per event loop, on its thread. Must outlive the GrpcServer. Costs a look at every watched name every
// kWatchPeriodNs, and nothing while there are no watchers.
class HealthService final : public GrpcStreamService {
 public:
  static constexpr std::string_view kCheckPath = "/grpc.health.v1.Health/Check";
  static constexpr std::string_view kWatchPath = "/grpc.health.v1.Health/Watch";
  static constexpr int64_t kWatchPeriodNs = 100 * kNanosPerMilli;
  // More are refused with RESOURCE_EXHAUSTED.
  static constexpr size_t kMaxWatchers = 1000;

  explicit HealthService(HealthSource* health) : health_(health) {}
  ~HealthService();
  HealthService(const HealthService&) = delete;

  void Check(GrpcCall* call);

  // Watch.
  void OnMessage(GrpcStream* stream, std::span<const uint8_t> message) override;
  void OnMessagesEnd(GrpcStream* stream) override;
  void OnDrain(GrpcStream* stream) override;
  void OnCancelled(GrpcStream* stream) override;

 private:
  enum class Serving : uint8_t { kUnknown = 0, kServing = 1, kNotServing = 2, kServiceUnknown = 3 };  // on the wire

  struct Watcher {
    GrpcStream* stream;
    std::string name;
    Serving told;
    std::list<Watcher>::iterator self;
  };

  Serving Of(std::string_view name);
  void Tell(Watcher* watcher, Serving serving);
  void Forget(GrpcStream* stream);
  void ScheduleLook(EventLoop* loop);

  HealthSource* health_;
  EventLoop* loop_ = nullptr;
  TimerId timer_ = 0;
  std::list<Watcher> watchers_;
};

}  // namespace msserving
