// The event loops of a server, each a thread with its router and its share of every listening socket.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/grpc_server.h"
#include "net/http_server.h"
#include "servable/health.h"
#include "server/loop_dispatcher.h"

namespace msserving {

inline constexpr int kMaxIoThreads = 48;  // what a worker is sent when it starts has four descriptors of each

struct FrontEndOptions {
  int io_threads = 1;   // 1 to kMaxIoThreads
  int64_t spin_ns = 0;  // EventLoop::SetSpin()
  // Hard caps, per event loop. Memory is only taken as it is used.
  size_t request_slab_bytes = size_t{2} << 30;  // of one servable version
  size_t reply_slab_bytes = size_t{2} << 30;    // of one worker
};

// Shared memory between one worker and all loops, made before the worker starts.
struct WorkerAttachment {
  UniqueFd worker_doorbell;
  std::vector<WorkerChannel> channels;                       // one per loop
  std::vector<std::shared_ptr<SharedMemory>> request_slabs;  // one per loop, shared by a version's workers
  bool extra = false;                                        // runs no models: WorkerLink::extra
};

// Methods may be called by any thread but a loop's, one at a time; they wait for the loops where they must.
class FrontEnd {
 public:
  explicit FrontEnd(FrontEndOptions options);
  ~FrontEnd();  // as Stop()
  FrontEnd(const FrontEnd&) = delete;

  // Starts the threads.
  Status Start();

  // The limits of `options` are for all loops together. Each may be started once. Errors are for the user.
  Status StartGrpc(const std::string& address, GrpcServerOptions options, std::shared_ptr<TlsContext> tls);
  Status StartRest(const std::string& address, HttpServerOptions options, std::shared_ptr<TlsContext> tls);
  bool has_grpc() const { return has_grpc_; }
  bool has_rest() const { return has_rest_; }

  // Memory for one more worker of a version; `request_slabs` is filled if empty and shared otherwise.
  Status MakeAttachment(std::vector<std::shared_ptr<SharedMemory>>* request_slabs, WorkerAttachment* attachment);
  // The descriptors that the worker is sent, in the order of control_socket.h. They belong to the attachment.
  std::vector<int> DescriptorsOf(const WorkerAttachment& attachment) const;
  size_t reply_slab_bytes() const { return options_.reply_slab_bytes; }

  // Return before the loops have acted. What they do with it: loop_dispatcher.h.
  void AddWorker(uint64_t worker, const ServableSignature& signature, WorkerAttachment attachment,
                 const std::shared_ptr<const VersionGate>& gate = nullptr);
  // `answered` is called on a loop's thread: once every loop's probe is back, or with the error of each that failed.
  void ProbeWorker(uint64_t worker, const std::function<void(const Status&)>& answered);
  void JoinWorker(uint64_t worker);
  void RemoveWorker(uint64_t worker, const std::string& reason);
  // As LoopDispatcher::GiveUp(), on every loop.
  void GiveUp(uint64_t worker, uint8_t running);
  void DropVersion(const std::string& servable, uint64_t version);
  // `drained` is called on a loop's thread once no loop has a request with the version any more.
  void WhenDrained(const std::string& servable, uint64_t version, std::function<void()> drained);
  // `done` is called on a loop's thread once every loop has done what it was asked before this call, and is back in its
  // event loop.
  void Barrier(std::function<void()> done);

  // What health checks answer; not ready from Drain() on, whatever is set.
  void SetReady(bool ready) { readiness_.ready.store(ready, std::memory_order_relaxed); }
  DispatchLimits& limits() { return *limits_; }

  // No new connections; running calls go on. Then Calls() falls to 0.
  void Drain();
  size_t Calls();
  void Stop();  // idempotent; ends every connection

  struct Stats {
    uint64_t accepted = 0, answered = 0, cancelled = 0, refused = 0, redispatched = 0, lost_worker = 0, pending = 0;
    uint64_t bytes_in_flight = 0;
  };
  Stats CollectStats() const;

 private:
  struct LoopThread;
  struct Readiness {
    std::atomic<bool> ready{false};
    std::atomic<bool> draining{false};
  };

  Status ShareListener(const std::string& address, bool allow_unix,
                       const std::function<void(LoopThread*, UniqueFd)>& take);
  void OnAllLoops(const std::function<void(LoopThread*)>& function);  // and waits

  FrontEndOptions options_;
  std::shared_ptr<DispatchLimits> limits_ = std::make_shared<DispatchLimits>();
  Readiness readiness_;
  std::vector<std::unique_ptr<LoopThread>> loops_;
  bool has_grpc_ = false;
  bool has_rest_ = false;
};

}  // namespace msserving
