// The REST front-end alone: answers every request with its own body. What a request costs before anything of serving
// is done.
//   rest_echo [--port N] [--threads N] [--max-mb N] [--cert FILE --key FILE]
#include <signal.h>
#include <sys/prctl.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "net/http_server.h"
#include "net/listen.h"
#include "net/tls.h"

namespace msserving {
namespace {

class EchoService final : public HttpService {
 public:
  void OnRequest(HttpCall* call) override {
    OutgoingBody body;
    body.encoded = call->loop().buffers().Acquire(call->body().size());
    body.encoded.Append(call->body().data(), call->body().size());
    call->Reply(200, call->content_type(), std::move(body));
  }
  void OnCancelled(HttpCall*) override {}
  std::string ErrorBody(int, std::string_view reason) override { return std::string(reason); }
};

struct Worker {
  EventLoop loop;
  EchoService service;
  std::unique_ptr<HttpServer> server;
  std::thread thread;
};

[[noreturn]] void Die(const Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

int Run(int argc, char** argv) {
  Address address{"127.0.0.1", 1500, ""};
  int threads = 1;
  HttpServerOptions options;
  TlsOptions tls_options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const char* value = argv[i + 1];
    if (name == "--port") {
      address.port = std::atoi(value);
    } else if (name == "--threads") {
      threads = std::atoi(value);
    } else if (name == "--max-mb") {
      options.max_body_bytes = std::strtoull(value, nullptr, 10) << 20;
    } else if (name == "--cert") {
      tls_options.certificate_file = value;
    } else if (name == "--key") {
      tls_options.private_key_file = value;
    } else {
      std::fprintf(stderr, "unknown option %s\n", name.c_str());
      return 1;
    }
  }
  std::shared_ptr<TlsContext> tls;
  if (!tls_options.certificate_file.empty()) {
    if (Status status = TlsContext::Create(tls_options, &tls); !status.ok()) {
      Die(status);
    }
  }
  prctl(PR_SET_PDEATHSIG, SIGTERM);  // a benchmark that dies leaves no server behind
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);

  std::vector<UniqueFd> sockets;
  if (Status status = Listen(address, threads, &sockets); !status.ok()) {
    Die(status);
  }
  std::vector<std::unique_ptr<Worker>> workers;
  for (UniqueFd& socket : sockets) {
    auto worker = std::make_unique<Worker>();
    worker->server = std::make_unique<HttpServer>(&worker->loop, std::move(socket), options, &worker->service, tls);
    worker->thread = std::thread([loop = &worker->loop] { loop->Run(); });
    workers.push_back(std::move(worker));
  }
  std::printf("ready on port %d\n", address.port);
  std::fflush(stdout);
  int signal = 0;
  sigwait(&ends, &signal);
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
