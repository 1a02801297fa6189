// Starts the workers, learns when they are ready, notices their death at once and starts them again; lets versions of
// servables join and leave while others serve.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
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
  bool extra = false;  // runs no models; started once a device worker is ready, and only if a method has Python stages
};

struct ServableSpec {
  std::string name;
  uint64_t version = 1;
  std::vector<WorkerSpec> workers;   // at least one
  std::vector<std::string> command;  // a worker's, without its last argument
  std::vector<std::pair<std::string, std::string>> environment;
  bool joins_later = false;     // others serve already: health does not wait for it
  std::shared_ptr<Secret> key;  // of its encrypted models, for every worker; may be null
  // While it starts a worker has others to tell of its end: it is asked by SIGTERM, and killed `terminate_ns` later.
  bool takes_leave = false;
};

// With this a worker of a distributed servable leaves that has lost its ranks: it is not to blame, so it comes
// back after the first back-off, however often.
inline constexpr int kRanksLostExitCode = 75;

struct SupervisorOptions {
  int64_t first_backoff_ns = kNanosPerSecond;
  int64_t max_backoff_ns = 30 * kNanosPerSecond;
  int64_t healthy_after_ns = 60 * kNanosPerSecond;  // then the next death is again answered with the first back-off
  int64_t grace_ns = 10 * kNanosPerSecond;          // for the workers of a version that leaves
  size_t log_tail_bytes = 4096;
  LogFileOptions log_file = LogFileOptions::FromEnvironment();
  // A running worker that shows no sign of life for so long (stopped, or its memory swapped out for good) is killed;
  // 0: never. Stages may run as long as they like: the sign comes from a thread of its own.
  int64_t silence_ns = 30 * kNanosPerSecond;
  // A worker that has said that it is ready takes requests once a probe has come back through it; one whose probe does
  // not come back for so long is killed.
  int64_t probe_ns = 30 * kNanosPerSecond;
  int64_t terminate_ns = kNanosPerSecond;  // between SIGTERM and SIGKILL, for a worker over a method's time-out
};

// A worker is first *starting*; *probing* once it has said that it is ready; *running* from when a probe has gone
// through it (FrontEnd::ProbeWorker); *ending* if it hangs, until it has been killed; after a
// death it waits out its back-off and starts again, until its version leaves or the supervisor stops. Only before it
// was ready once is a failure final: its version has failed, and its other workers are ended.
//
// A version *joins*: once all of its workers were ready, its gate opens, for all loops at once. It *leaves*: its gate
// is closed, its requests are answered, its workers end, its memory is given back.
//
// Extra workers (extra_workers.h) are told of the device workers of their version, and these of them, as they come and
// go; when all stop, device workers answer extra ones until the last of those has left.
//
// Methods: any thread, any time. All
// else happens on the supervisor's own thread.
class Supervisor {
 public:
  Supervisor(FrontEnd* front_end, SupervisorOptions options);
  ~Supervisor();  // as Stop(0)
  Supervisor(const Supervisor&) = delete;

  void Start();
  // Returns the version's number, which is never used again.
  uint64_t Add(ServableSpec spec);

  enum class Progress { kStarting, kReady, kFailed };
  // Waits up to timeout_ns for these versions, or for every one added so far. kReady: requests reach all of them.
  // kFailed: *error is the failure of the first in the list that has one, for the user. One that left has failed.
  Progress WaitReady(std::span<const uint64_t> versions, int64_t timeout_ns, std::string* error);
  Progress WaitReady(int64_t timeout_ns, std::string* error);

  // Lets a version leave: its requests have `drain_ns` to be answered, its workers then `grace_ns` (options) to end by
  // themselves. At any time but while WaitReady() would still say kStarting for another version of the same servable:
  // "newest" might be neither for an instant. Returns at once; unknown numbers are ignored.
  void Retire(uint64_t version, int64_t drain_ns);
  // True if it has left: no process, no descriptor and no memory of it is here. Waits up to timeout_ns for that.
  bool WaitGone(uint64_t version, int64_t timeout_ns);
  // What the version's first ready worker said of itself (JSON); empty if none was ready or it has left.
  std::string Describe(uint64_t version);

  // Tells every worker to answer what it has and leave; kills those that are still there after `grace_ns`, or once
  // `hurried` says so. No worker is started again. Idempotent.
  void Stop(int64_t grace_ns, const std::function<bool()>& hurried = nullptr);

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
