// Starts the workers, learns when they are ready, notices their death at once and starts them again.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/secret.h"
#include "server/front_end.h"
#include "server/log_file.h"
#include "server/worker_process.h"

namespace msserving {

struct WorkerSpec {
  std::string label;        // for people: "add, version 1, device 0"
  std::string config_json;  // what the worker is told; not looked into
  std::string log_file;
};

struct ServableSpec {
  std::string name;
  uint64_t version = 1;
  std::vector<WorkerSpec> workers;
  std::vector<std::string> command;  // a worker's, without its last argument
  std::vector<std::pair<std::string, std::string>> environment;
  std::shared_ptr<Secret> key;  // of its encrypted models, for every worker; may be null
};

struct SupervisorOptions {
  int64_t first_backoff_ns = kNanosPerSecond;
  int64_t max_backoff_ns = 30 * kNanosPerSecond;
  int64_t healthy_after_ns = 60 * kNanosPerSecond;  // then the next death is again answered with the first back-off
  size_t log_tail_bytes = 4096;
  LogFileOptions log_file = LogFileOptions::FromEnvironment();
  // A running worker that shows no sign of life for so long (stopped, or its memory swapped out for good) is killed;
  // 0: never. Stages may run as long as they like: the sign comes from a thread of its own.
  int64_t silence_ns = 30 * kNanosPerSecond;
  int64_t terminate_ns = kNanosPerSecond;  // between SIGTERM and SIGKILL, for a worker over a method's time-out
};

// A worker is first *starting*; once ready it is *running*; *ending* if it hangs, until it has been killed; after a
// death it waits out its back-off and starts again, for as long as the supervisor lives. Only before its servable was
// ready once is a failure final. Methods: any thread, one at a time. All else happens on the supervisor's own thread.
class Supervisor {
 public:
  Supervisor(FrontEnd* front_end, SupervisorOptions options);
  ~Supervisor();  // as Stop(0)
  Supervisor(const Supervisor&) = delete;

  void Start();
  void Add(ServableSpec spec);

  enum class Progress { kStarting, kReady, kFailed };
  // Waits up to timeout_ns for every worker added so far. kFailed: *error is the first failure, for the user.
  Progress WaitReady(int64_t timeout_ns, std::string* error);

  // Tells every worker to answer what it has and leave; kills those that are still there after `grace_ns`.
  // No worker is started again. Idempotent.
  void Stop(int64_t grace_ns);

  // One line of state per worker: label, state, pid, restarts.
  struct WorkerState {
    std::string label;
    std::string state;
    int pid;
    uint64_t restarts;
  };
  std::vector<WorkerState> Workers();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace msserving
