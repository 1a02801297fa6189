// What gRPC clients call: MSService/Predict over a Dispatcher; health and reflection have services of their own.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "net/grpc_server.h"
#include "protocol/health_service.h"
#include "protocol/predict_codec.h"
#include "protocol/reflection_service.h"
#include "protocol/signature_store.h"
#include "servable/dispatcher.h"
#include "servable/health.h"

namespace msserving {

// One per event loop, beside that loop's GrpcServer and Dispatcher; every call on that loop's thread. Must outlive the
// GrpcServer, and the dispatcher must outlive it. Steady traffic allocates nothing per call, but for replies with
// tensors of kSliceBytes and more: those keep the reply's memory until they are sent, all others release it at once.
class GrpcPredictService final : public GrpcService {
 public:
  static constexpr std::string_view kPredictPath = "/mindspore.serving.proto.MSService/Predict";

  GrpcPredictService(Dispatcher* dispatcher, HealthSource* health);
  ~GrpcPredictService();
  GrpcPredictService(const GrpcPredictService&) = delete;

  bool HasMethod(std::string_view path) const override;
  GrpcStreamService* Streaming(std::string_view path) override;
  void OnHeaders(GrpcCall* call) override;  // refuses when the dispatcher is full
  void OnCall(GrpcCall* call) override;
  void OnCancelled(GrpcCall* call) override;

  // Calls handed to the dispatcher and neither answered nor cancelled yet.
  size_t calls_in_flight() const { return contexts_.size() - idle_.size(); }

 private:
  class PredictCall;

  void Predict(GrpcCall* call);
  void GatherIfTooMany(GrpcCall* call, const Status& status);
  PredictCall* AcquireContext();

  Dispatcher* dispatcher_;
  HealthService health_;
  ReflectionService reflection_;
  SignatureStore signatures_;
  // Used inside one OnCall() at a time.
  RequestEnvelope envelope_;
  RequestInstances instances_;
  std::vector<std::unique_ptr<PredictCall>> contexts_;
  std::vector<PredictCall*> idle_;
};

}  // namespace msserving
