// A whole server: event loops, workers and their supervision. What the Python API and embedding programs hold.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "net/tls.h"
#include "server/front_end.h"
#include "server/supervisor.h"

namespace msserving {

struct ServerOptions {
  FrontEndOptions front_end;
  SupervisorOptions supervisor;
};

// Of one endpoint, gRPC or REST. What only one of them knows is ignored by the other.
struct EndpointLimits {
  size_t max_connections = 10'000;
  uint32_t max_streams_per_connection = 1024;  // gRPC
  size_t max_pipelined_requests = 64;          // REST, per connection
  size_t max_header_bytes = 16 << 10;          // of one request
  int64_t request_timeout_ns = 100 * kNanosPerSecond;
  int64_t reply_timeout_ns = 100 * kNanosPerSecond;
  int64_t idle_timeout_ns = -1;                  // 0: none; -1: none for gRPC, 100 s for REST
  uint32_t max_resets_per_second = 1000;         // gRPC, per connection
  uint32_t max_control_frames_per_second = 100;  // gRPC, per connection
  double connection_bytes_share = 0.25;          // of the bytes in flight, for one connection; above 0, at most 1
};

struct ListenOptions {
  int max_msg_mb_size = 100;  // 1 to 512: of one message, both ways
  EndpointLimits limits;
  bool tls = false;
  TlsOptions tls_options;  // http2 is set by the server
};

// Any thread, any time.
class Server {
 public:
  explicit Server(ServerOptions options);
  ~Server();  // as Stop(0)

  Status Start();
  uint64_t AddServable(ServableSpec spec) { return supervisor_.Add(std::move(spec)); }
  Supervisor::Progress WaitReady(int64_t timeout_ns, std::string* error) {
    return supervisor_.WaitReady(timeout_ns, error);
  }
  // For what else versions do: supervisor.h. Not for its Stop().
  Supervisor& supervisor() { return supervisor_; }
  // A second start of the same kind is an error.
  Status StartGrpc(const std::string& address, const ListenOptions& options);
  Status StartRest(const std::string& address, const ListenOptions& options);

  void SetMaxPendingRequests(uint64_t limit) { front_end_.limits().max_pending_requests = limit; }
  void SetMaxQueueNs(int64_t limit) { front_end_.limits().max_queue_ns = limit; }  // 0: no limit
  void SetMaxBytesInFlight(uint64_t limit) { front_end_.limits().bytes_in_flight.set_limit(limit); }

  // Refuses new work, answers what is running for up to drain_ns, ends the workers, closes everything. A second
  // SIGINT or SIGTERM during that ends the waiting. Idempotent: a second call returns when the first has finished.
  void Stop(int64_t drain_ns);

  // JSON: requests accepted, answered, refused …, and the state of every worker.
  std::string Stats();

 private:
  Status MakeTls(const ListenOptions& options, bool http2, std::shared_ptr<TlsContext>* context);

  FrontEnd front_end_;
  Supervisor supervisor_;
  std::mutex start_mutex_;  // one StartGrpc() or StartRest() at a time, and none from the end of Stop()'s drain on
  std::mutex stop_mutex_;   // held by Stop() from its beginning to its end
  std::mutex loops_mutex_;  // Stats() reads the loops' counters while Stop() takes the loops down
  bool stopped_ = false;
};

}  // namespace msserving
