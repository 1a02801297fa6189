#include "net/http_server.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "net/acceptor.h"
#include "net/http_connection.h"
#include "net/tls.h"

namespace msserving {
namespace {

// Beyond the limit this many more are told so; the rest is closed without a word.
constexpr size_t kRefusedAtOnce = 256;

}  // namespace

struct HttpServer::Impl {
  Impl(EventLoop* loop, UniqueFd listening_socket, const HttpServerOptions& options, HttpService* service,
       std::shared_ptr<TlsContext> tls_context)
      : shared(loop, options, service),
        tls(std::move(tls_context)),
        refresher(loop, tls),
        acceptor(loop, std::move(listening_socket), [this](UniqueFd socket) { OnAccept(std::move(socket)); }) {
    // One sweep over all connections now and then instead of a timer for each request.
    int64_t shortest =
        std::max<int64_t>(std::min(options.incomplete_timeout_ns, options.slow_reader_timeout_ns), kNanosPerMilli);
    if (options.idle_timeout_ns > 0) {
      shortest = std::min(shortest, options.idle_timeout_ns);
    }
    sweep_interval_ns = std::clamp<int64_t>(shortest / 4, kNanosPerMilli, kNanosPerSecond);
  }

  ~Impl() {
    shared.loop.CancelTimer(sweep_timer);
    while (shared.first != nullptr) {
      delete shared.first;  // takes itself out. NOLINT(clang-analyzer-cplusplus.NewDelete)
    }
  }

  void OnAccept(UniqueFd socket) {
    const size_t count = shared.options.connections->load(std::memory_order_relaxed);
    if (count >= shared.options.max_connections + kRefusedAtOnce) {
      return;
    }
    const bool refused = count >= shared.options.max_connections;
    if (refused) {
      MSSERVING_LOG_LIMITED(refusals, shared.loop.now_ns(), kWarning,
                            "Refused a REST connection: there are " << count << " already");
    }
    auto* connection = new HttpConnection(&shared, std::move(socket), tls);
    if (refused) {
      connection->BeginRefused();
    } else {
      connection->Begin();
    }
    if (sweep_timer == 0) {
      ScheduleSweep();
    }
  }

  void ScheduleSweep() {
    sweep_timer = shared.loop.AddTimer(shared.loop.now_ns() + sweep_interval_ns, [this] {
      sweep_timer = 0;
      for (HttpConnection* c = shared.first; c != nullptr; c = c->next()) {
        c->CheckTimeouts(shared.loop.now_ns());
      }
      if (shared.first != nullptr) {
        ScheduleSweep();
      }
    });
  }

  HttpShared shared;
  std::shared_ptr<TlsContext> tls;
  TlsRefresher refresher;
  RateLimit refusals;
  int64_t sweep_interval_ns = 0;
  TimerId sweep_timer = 0;
  Acceptor acceptor;
};

HttpServer::HttpServer(EventLoop* loop, UniqueFd listening_socket, const HttpServerOptions& options,
                       HttpService* service, std::shared_ptr<TlsContext> tls)
    : impl_(std::make_unique<Impl>(loop, std::move(listening_socket), options, service, std::move(tls))) {}

HttpServer::~HttpServer() = default;

void HttpServer::Drain() {
  impl_->acceptor.Stop();
  impl_->shared.draining = true;
  for (HttpConnection* c = impl_->shared.first; c != nullptr; c = c->next()) {
    c->Drain();
  }
}

size_t HttpServer::connections() const { return impl_->shared.connections; }
size_t HttpServer::calls() const { return impl_->shared.calls; }

}  // namespace msserving
