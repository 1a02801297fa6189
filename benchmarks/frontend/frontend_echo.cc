// The front-end alone: answers every unary gRPC call with its own message. What a request costs before anything of
// serving is done; compare with bare_nghttp2_echo.
//   frontend_echo [--port N] [--threads N] [--max-mb N] [--cert FILE --key FILE [--ca FILE]]
// Methods /echo/Echo, /echo/Late (answers after 50 ms), /echo/Never, /echo/Fail, and the Predict method.
#include <signal.h>
#include <sys/prctl.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "net/grpc_server.h"
#include "net/listen.h"
#include "net/tls.h"

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

struct Worker {
  EventLoop loop;
  EchoService service;
  std::unique_ptr<GrpcServer> server;
  std::thread thread;
};

[[noreturn]] void Die(const Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

int Run(int argc, char** argv) {
  Address address{"127.0.0.1", 5500, ""};
  int threads = 1;
  GrpcServerOptions options;
  TlsOptions tls_options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const char* value = argv[i + 1];
    if (name == "--port") {
      address.port = std::atoi(value);
    } else if (name == "--threads") {
      threads = std::atoi(value);
    } else if (name == "--max-mb") {
      options.max_receive_bytes = options.max_send_bytes = std::strtoull(value, nullptr, 10) << 20;
    } else if (name == "--cert") {
      tls_options.certificate_file = value;
    } else if (name == "--key") {
      tls_options.private_key_file = value;
    } else if (name == "--ca") {
      tls_options.custom_ca_file = value;
      tls_options.verify_client = true;
    } else {
      std::fprintf(stderr, "unknown option %s\n", name.c_str());
      return 1;
    }
  }
  std::shared_ptr<TlsContext> tls;
  if (!tls_options.certificate_file.empty()) {
    tls_options.http2 = true;
    if (Status status = TlsContext::Create(tls_options, &tls); !status.ok()) {
      Die(status);
    }
  }
  prctl(PR_SET_PDEATHSIG, SIGTERM);  // a benchmark that dies leaves no server behind
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGUSR1);  // drain, but stay
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);

  std::vector<UniqueFd> sockets;
  if (Status status = Listen(address, threads, &sockets); !status.ok()) {
    Die(status);
  }
  std::vector<std::unique_ptr<Worker>> workers;
  for (UniqueFd& socket : sockets) {
    auto worker = std::make_unique<Worker>();
    worker->server = std::make_unique<GrpcServer>(&worker->loop, std::move(socket), options, &worker->service, tls);
    worker->thread = std::thread([loop = &worker->loop] { loop->Run(); });
    workers.push_back(std::move(worker));
  }
  std::printf("ready on port %d\n", address.port);
  std::fflush(stdout);
  for (int signal = 0; sigwait(&ends, &signal) == 0 && signal == SIGUSR1;) {
    for (auto& worker : workers) {
      worker->loop.Post([server = worker->server.get()] { server->Drain(); });
    }
  }
  for (auto& worker : workers) {
    worker->loop.Stop();
    worker->thread.join();
    worker->server.reset();
  }
  return 0;
}

}  // namespace
}  // namespace msserving

int main(int argc, char** argv) { return msserving::Run(argc, argv); }
