// What a Supervisor keeps of servable versions and their workers. For its own sources only:
//   supervisor.cc           what other threads call
//   supervisor_versions.cc  versions join, fail, leave
//   supervisor_workers.cc   a worker's process: start, words, readiness, death, the next start
//   supervisor_watch.cc     a running worker that hangs or takes too long
//   supervisor_extras.cc    extra workers and device workers meet and part
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "net/event_loop.h"
#include "server/extra_workers.h"
#include "server/supervisor.h"
#include "tensor/shared_memory.h"

namespace msserving {

struct Supervisor::State {
  enum class Phase { kStarting, kProbing, kRunning, kEnding, kWaiting, kFailed, kStopped, kNotNeeded };
  struct Servable;
  struct Worker;

  State(FrontEnd* f, SupervisorOptions o) : front_end(f), options(o) {}

  FrontEnd* front_end;
  SupervisorOptions options;
  EventLoop loop;
  std::thread thread;

  // The loop's thread only.
  std::vector<std::unique_ptr<Servable>> servables;
  std::vector<std::unique_ptr<Worker>> workers;
  bool stopping = false;
  uint64_t next_worker = 1;
  std::deque<int64_t> deaths_ns;  // of the last minute
  int64_t many_deaths_told_ns = INT64_MIN;

  // Told to other threads; nothing is called under the mutex.
  std::mutex mutex;
  std::condition_variable changed;
  struct News {
    Progress progress = Progress::kStarting;
    std::string text;  // the failure; the description once ready
    bool gone = false;
  };
  std::map<uint64_t, News> news;  // of each version, until a failure has been told or it has left
  uint64_t next_version = 1;
  size_t alive = 0;  // processes
  std::vector<WorkerState> published;

  // supervisor_versions.cc
  static const char* NameOf(Phase phase);
  void Publish();
  void Add(uint64_t id, ServableSpec spec);
  Servable* Find(uint64_t id);
  void OpenIfReady(Servable* servable);
  void Fail(Servable* servable, const std::string& why);
  void Retire(Servable* servable, int64_t drain_ns);
  void EndWorkers(Servable* servable, bool at_once);
  void RemoveIfGone(Servable* servable);
  // Later and on the loop's thread; not at all if the version has gone by then.
  void Later(uint64_t id, std::function<void(Servable*)> function);
  void SetTimer(Servable* servable, int64_t after_ns, std::function<void()> function);
  // supervisor_workers.cc
  void CountDeath();
  // supervisor_extras.cc: of one servable version, extra workers and device workers meet and part.
  void StartExtras(Servable* servable, const ServableSignature& signature);
  void Introduce(Worker* worker);
  void SayGone(const Worker& worker);
  bool ExtrasRun(const Servable* servable) const;
  void StopDevicesAfterExtras(const Servable* servable);
};

// A servable version.
struct Supervisor::State::Servable {
  uint64_t id = 0;
  ServableSpec spec;
  std::vector<std::shared_ptr<SharedMemory>> request_slabs;  // survive the workers
  bool extras_started = false;
  bool has_models = false;
  std::string description;  // the latest that a device worker gave
  std::shared_ptr<VersionGate> gate = std::make_shared<VersionGate>(false);
  enum class Stage { kJoining, kOpening, kServing, kDraining, kEnding } stage = Stage::kJoining;
  TimerId timer = 0;  // the end of the drain, then of the grace
  bool leaving() const { return stage >= Stage::kDraining; }
};

// One worker's life, over all its processes.
struct Supervisor::State::Worker {
  Worker(State* s, Servable* v, const WorkerSpec& w)
      : state(s),
        servable(v),
        spec(w),
        log_file(s->options.log_file),
        log_pipe(&s->loop, &log_file),
        pid_events(this),
        control_events(this) {}

  // supervisor_workers.cc
  void Launch();
  void OnControl();
  void OnExit();
  void SaidReady(const std::string& body);
  void Probed(const Status& status);
  void Join();
  void Died(const std::string& how, bool lost_ranks = false);
  void SendStop();
  void CloseControl();
  WorkerEnd AsEnd() const { return {id, control.get(), doorbell.get()}; }
  // supervisor_watch.cc
  void WatchProbe();
  void WatchFromNow();
  void Watch();
  void LookAgain();
  void End(uint8_t running, const std::string& why, int signal);
  void KillLater(Phase if_still);

  struct PidEvents final : IoHandler {
    explicit PidEvents(Worker* w) : worker(w) {}
    void OnIo(uint32_t) override { worker->OnExit(); }
    Worker* worker;
  };
  struct ControlEvents final : IoHandler {
    explicit ControlEvents(Worker* w) : worker(w) {}
    void OnIo(uint32_t) override { worker->OnControl(); }
    Worker* worker;
  };

  State* state;
  Servable* servable;
  WorkerSpec spec;
  uint64_t id = 0;  // of the current process; a new one each time
  Phase phase = Phase::kWaiting;
  bool was_ready = false;
  uint64_t restarts = 0;
  int64_t backoff_ns = 0;
  int64_t ready_at_ns = 0;
  ServableSignature signature;  // that the current process, or the last, gave with its description
  std::string description;
  std::string said;           // the failure that the worker itself reported
  uint8_t given_up = 0;       // the mark of what took too long, if that is why it was ended
  std::string ended_because;  // why the supervisor ended it
  uint64_t oom_kills = 0;     // of the whole machine, when the process started
  SharedMemory board_memory;  // of the current process
  int64_t watch_every_ns = 0;
  uint64_t beats = 0;       // the board's, when last looked at
  int64_t silent_ns = 0;    // how long they have been that
  TimerId watch_timer = 0;  // also of the probe, and of the kill after a SIGTERM
  LogFile log_file;
  LogPipe log_pipe;
  TimerId restart_timer = 0;
  WorkerProcess process;
  int pid = 0;  // of the current or last process
  UniqueFd control;
  WorkerAttachment attachment;
  UniqueFd doorbell;  // the process's
  SharedMemory rows;  // of an extra worker: what it hands to device workers
  bool stop_after_extras = false;
  PidEvents pid_events;
  ControlEvents control_events;
};

}  // namespace msserving
