// grpc.reflection.v1 and v1alpha: tools such as grpcurl ask what can be called. Both versions speak the same messages.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "net/grpc_server.h"

namespace msserving {

// One per event loop, on its thread. Must outlive the GrpcServer.
class ReflectionService final : public GrpcStreamService {
 public:
  static constexpr std::string_view kPathV1 = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
  static constexpr std::string_view kPathV1Alpha = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  // More calls at one time are refused with RESOURCE_EXHAUSTED.
  static constexpr size_t kMaxStreams = 100;

  ReflectionService() = default;
  ReflectionService(const ReflectionService&) = delete;

  void OnMessage(GrpcStream* stream, std::span<const uint8_t> message) override;
  void OnMessagesEnd(GrpcStream* stream) override;
  void OnDrain(GrpcStream* stream) override;
  void OnCancelled(GrpcStream* stream) override;

  // The answer to one ServerReflectionRequest, appended to `reply`. False: it is malformed.
  static bool Answer(std::span<const uint8_t> request, Buffer* reply);

 private:
  void Leave(GrpcStream* stream);

  size_t streams_ = 0;
};

}  // namespace msserving
