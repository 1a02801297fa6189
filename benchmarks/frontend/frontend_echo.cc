// The front-end alone: answers every unary gRPC call with its own message. What a request costs before anything of
// serving is done; compare with bare_nghttp2_echo.
//   frontend_echo [--port N] [--threads N] [--max-mb N] [--cert FILE --key FILE [--ca FILE]]
// Methods /echo/Echo, /echo/Late (answers after 50 ms), /echo/Never, /echo/Fail, and the Predict method.
#include <string_view>
#include <unordered_map>
#include <utility>

#include "echo_server.h"
#include "net/grpc_server.h"

namespace msserving {
namespace {

class EchoService final : public GrpcService {
 public:
  bool HasMethod(std::string_view path) const override {
    return path == kPredict || path == kEcho || path == kLate || path == kNever || path == kFail;
  }

  void OnCall(GrpcCall* call) override {
    if (call->path() == kLate) {
      waiting_[call] = call->loop().AddTimer(call->loop().now_ns() + 50 * kNanosPerMilli, [this, call] {
        waiting_.erase(call);
        Echo(call);
      });
    } else if (call->path() == kNever) {
      waiting_[call] = 0;
    } else if (call->path() == kFail) {
      call->Fail(GrpcStatus::kInvalidArgument, "50 % of \xC3\xBC\n");
    } else {
      Echo(call);
    }
  }

  void OnCancelled(GrpcCall* call) override {
    const auto found = waiting_.find(call);
    if (found != waiting_.end()) {
      call->loop().CancelTimer(found->second);
      waiting_.erase(found);
    }
  }

 private:
  static constexpr std::string_view kPredict = "/mindspore.serving.proto.MSService/Predict";
  static constexpr std::string_view kEcho = "/echo/Echo";
  static constexpr std::string_view kLate = "/echo/Late";
  static constexpr std::string_view kNever = "/echo/Never";
  static constexpr std::string_view kFail = "/echo/Fail";

  static void Echo(GrpcCall* call) {
    OutgoingBody body;
    body.encoded = call->loop().buffers().Acquire(call->message().size());
    body.encoded.Append(call->message().data(), call->message().size());
    call->Reply(std::move(body));
  }

  std::unordered_map<GrpcCall*, TimerId> waiting_;
};

int Run(int argc, char** argv) {
  EchoOptions options;
  options.port = 5500;
  options.tls.http2 = true;
  if (!ParseEchoOptions(argc, argv, &options)) {
    return 1;
  }
  GrpcServerOptions server_options;
  if (options.max_bytes > 0) {
    server_options.max_receive_bytes = server_options.max_send_bytes = options.max_bytes;
  }
  // Drains, but stays.
  return RunEchoServer<GrpcServer, EchoService>(options, server_options, [](GrpcServer* server) { server->Drain(); });
}

}  // namespace
}  // namespace msserving

int main(int argc, char** argv) { return msserving::Run(argc, argv); }
