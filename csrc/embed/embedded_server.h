// What MsServingServer is: a server with the versions it runs, and who may call what while it stops.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

#include "embed/launch_plan.h"
#include "embed/running_versions.h"
#include "server/server.h"

namespace msserving::embed {

struct EmbeddedServerOptions {
  std::string python;  // "": MSSERVING_PYTHON, or python3
  std::filesystem::path log_directory = "serving_logs";
  int64_t io_threads = 1;
  double worker_silence_seconds = 30;
  int64_t spin_ns = 0;  // EventLoop::SetSpin()
};

// Any thread, any time, but for construction and destruction. All failures are EmbedErrors.
//
// Locks, in this order: stop_mutex_ (the whole of Stop()), start_mutex_ (one call that starts, stops or reloads
// servables at a time, held while it waits), use_mutex_ (shared by calls that use the server for an instant, exclusive
// to give it up). watch_mutex_ is held for instants, under start_mutex_ or alone.
class EmbeddedServer {
 public:
  using Workers = std::vector<Supervisor::WorkerState>;

  explicit EmbeddedServer(EmbeddedServerOptions options);
  ~EmbeddedServer();  // as Stop(0); never in a forked process
  EmbeddedServer(const EmbeddedServer&) = delete;
  EmbeddedServer& operator=(const EmbeddedServer&) = delete;

  // `progress` (may be empty) is called about ten times a second; false ends the waiting.
  void StartServables(const std::vector<StartConfig>& configs, const std::function<bool(const Workers&)>& progress);
  void StopServable(const std::string& name, uint64_t version, int64_t drain_ns);
  void ReloadServables(int64_t drain_ns, const std::function<void(const std::string&, uint64_t)>& loaded);
  void WatchVersions(int64_t interval_ns, int64_t drain_ns);  // 0: no more

  void StartGrpc(const std::string& address, const ListenOptions& options);
  void StartRest(const std::string& address, const ListenOptions& options);
  // For what takes an instant. Also while the server stops, but not on one that has stopped.
  void Use(const std::function<void(Server*)>& function);

  // Afterwards nothing of the server is left. A second call returns when the first has finished.
  void Stop(int64_t drain_ns);
  // This process is a child of the one that has the server's threads.
  bool forked() const;

 private:
  static void Listen(Server* server, const std::string& function,
                     Status (Server::*start)(const std::string&, const ListenOptions&), std::atomic<bool>* listens,
                     const std::string& address, const ListenOptions& options);
  void CheckProcess() const;
  void CheckRuns() const;
  void CheckNoCallback() const;
  void CheckStopping(const std::string& doing) const;
  void CheckSignals(const std::string& doing) const;
  void RunWatch();

  const EmbeddedServerOptions options_;
  const pid_t pid_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> grpc_listens_{false};
  std::atomic<bool> rest_listens_{false};
  std::atomic<std::thread::id> callback_thread_{};

  std::mutex stop_mutex_;
  std::mutex start_mutex_;
  std::shared_mutex use_mutex_;
  std::unique_ptr<Server> server_;             // null once it is stopped; exchanged under all three
  std::unique_ptr<RunningVersions> versions_;  // guarded by start_mutex_
  std::vector<std::string> command_;           // of a worker; empty until it is known; guarded by start_mutex_

  std::mutex watch_mutex_;
  std::condition_variable watch_changed_;
  int64_t watch_interval_ns_ = 0;  // guarded by watch_mutex_, with those below
  int64_t watch_drain_ns_ = 0;
  uint64_t watch_orders_ = 0;
  std::thread watch_;
};

}  // namespace msserving::embed
