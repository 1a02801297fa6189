// What the echo servers of both protocols share: options, TLS, one loop a thread, their end.
#pragma once

#include <signal.h>
#include <sys/prctl.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "net/event_loop.h"
#include "net/listen.h"
#include "net/tls.h"

namespace msserving {

struct EchoOptions {
  int port = 0;
  int threads = 1;
  uint64_t max_bytes = 0;  // 0: the server's default
  TlsOptions tls;
};

// --port N --threads N --max-mb N --cert FILE --key FILE --ca FILE; false after saying what is wrong.
inline bool ParseEchoOptions(int argc, char** argv, EchoOptions* options) {
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    const char* value = argv[i + 1];
    if (name == "--port") {
      options->port = std::atoi(value);
    } else if (name == "--threads") {
      options->threads = std::atoi(value);
    } else if (name == "--max-mb") {
      options->max_bytes = std::strtoull(value, nullptr, 10) << 20;
    } else if (name == "--cert") {
      options->tls.certificate_file = value;
    } else if (name == "--key") {
      options->tls.private_key_file = value;
    } else if (name == "--ca") {
      options->tls.custom_ca_file = value;
      options->tls.verify_client = true;
    } else {
      std::fprintf(stderr, "unknown option %s\n", name.c_str());
      return false;
    }
  }
  return true;
}

// Serves until SIGTERM or SIGINT, or the death of whoever started it. Each loop has a Service and a Server of its own;
// `on_usr1` is called on each loop with its server at SIGUSR1. Returns the exit code.
template <class Server, class Service, class ServerOptions, class OnUsr1>
int RunEchoServer(const EchoOptions& options, const ServerOptions& server_options, OnUsr1 on_usr1) {
  struct Worker {
    EventLoop loop;
    Service service;
    std::unique_ptr<Server> server;
    std::thread thread;
  };
  std::shared_ptr<TlsContext> tls;
  std::vector<UniqueFd> sockets;
  Status status;
  if (!options.tls.certificate_file.empty()) {
    status = TlsContext::Create(options.tls, &tls);
  }
  prctl(PR_SET_PDEATHSIG, SIGTERM);  // a benchmark that dies leaves no server behind
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  if (status.ok()) {
    status = Listen(Address{"127.0.0.1", options.port, ""}, options.threads, &sockets);
  }
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.message().c_str());
    return 1;
  }
  std::vector<std::unique_ptr<Worker>> workers;
  for (UniqueFd& socket : sockets) {
    auto worker = std::make_unique<Worker>();
    worker->server = std::make_unique<Server>(&worker->loop, std::move(socket), server_options, &worker->service, tls);
    worker->thread = std::thread([loop = &worker->loop] { loop->Run(); });
    workers.push_back(std::move(worker));
  }
  std::printf("ready on port %d\n", options.port);
  std::fflush(stdout);
  for (int signal = 0; sigwait(&ends, &signal) == 0 && signal == SIGUSR1;) {
    for (auto& worker : workers) {
      worker->loop.Post([&on_usr1, server = worker->server.get()] { on_usr1(server); });
    }
  }
  for (auto& worker : workers) {
    worker->loop.Stop();
    worker->thread.join();
    worker->server.reset();
  }
  return 0;
}

}  // namespace msserving
