#include "server/supervisor.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "base/log_event.h"
#include "net/event_loop.h"
#include "server/extra_workers.h"
#include "server/signature_json.h"
#include "tensor/control_socket.h"
#include "tensor/exchange.h"
#include "tensor/shared_memory.h"

namespace msserving {
namespace {

enum class Phase { kStarting, kRunning, kEnding, kWaiting, kFailed, kStopped, kNotNeeded };

// A worker is looked at so often, or ten times in its shortest time-out.
constexpr int64_t kWatchNs = kNanosPerSecond;
constexpr int64_t kWatchCloselyNs = 20 * kNanosPerMilli;
// So many deaths in a minute are told in a line of their own, once in ten seconds.
constexpr size_t kManyDeaths = 5;
constexpr int64_t kManyDeathsWindowNs = 60 * kNanosPerSecond;
constexpr int64_t kManyDeathsEveryNs = 10 * kNanosPerSecond;

const char* NameOf(Phase phase) {
  switch (phase) {
    case Phase::kStarting: return "starting";
    case Phase::kRunning: return "running";
    case Phase::kEnding: return "ending";
    case Phase::kWaiting: return "waiting to restart";
    case Phase::kFailed: return "failed";
    case Phase::kStopped: return "stopped";
    case Phase::kNotNeeded: return "not needed";
  }
  return "";
}

// A servable version.
struct Servable {
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

constexpr int64_t kHurryPollNs = 20 * kNanosPerMilli;

}  // namespace

struct Supervisor::State {
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

  void Publish();
  void CountDeath();
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
  // Of one servable version, extra workers and device workers meet and part.
  void StartExtras(Servable* servable, const ServableSignature& signature);
  void Introduce(Worker* worker);
  void SayGone(const Worker& worker);
  bool ExtrasRun(const Servable* servable) const;
  void StopDevicesAfterExtras(const Servable* servable);
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

  void Launch();
  void OnControl();
  void OnExit();
  void Ready(const std::string& body);
  void Died(const std::string& how);
  void SendStop();
  void CloseControl();
  WorkerEnd AsEnd() const { return {id, control.get(), doorbell.get()}; }
  void Watch();
  void LookAgain();
  void End(uint8_t running, const std::string& why, int signal);

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
  std::string said;           // the failure that the worker itself reported
  std::string ended_because;  // why the supervisor ended it
  uint64_t oom_kills = 0;     // of the whole machine, when the process started
  SharedMemory board_memory;  // of the current process
  int64_t watch_every_ns = kWatchNs;
  uint64_t beats = 0;       // the board's, when last looked at
  int64_t silent_ns = 0;    // how long they have been that
  TimerId watch_timer = 0;  // also of the kill after a SIGTERM
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

void Supervisor::State::Publish() {
  // Ready while every version has a running worker; those that join later or leave do not count.
  bool any = false;
  bool all = true;
  for (const auto& servable : servables) {
    const bool serving = servable->stage == Servable::Stage::kServing;
    if (servable->leaving() || (servable->spec.joins_later && !serving)) {
      continue;
    }
    any = true;
    all &= serving && std::any_of(workers.begin(), workers.end(), [&servable](const auto& worker) {
             return worker->servable == servable.get() && worker->phase == Phase::kRunning &&
                    !(worker->spec.extra && servable->has_models);
           });
  }
  front_end->SetReady(any && all && !stopping);
  std::vector<WorkerState> now;
  size_t running = 0;
  for (const auto& worker : workers) {
    now.push_back(
        {worker->spec.label, NameOf(worker->phase), static_cast<int>(worker->process.pid()), worker->restarts});
    running += worker->process.running() ? 1 : 0;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex);
    published = std::move(now);
    alive = running;
  }
  changed.notify_all();
}

Servable* Supervisor::State::Find(uint64_t id) {
  const auto found = std::find_if(servables.begin(), servables.end(), [id](const auto& one) { return one->id == id; });
  return found == servables.end() ? nullptr : found->get();
}

void Supervisor::State::Later(uint64_t id, std::function<void(Servable*)> function) {
  loop.Post([this, id, function = std::move(function)] {
    if (Servable* servable = Find(id)) {
      function(servable);
    }
  });
}

void Supervisor::State::SetTimer(Servable* servable, int64_t after_ns, std::function<void()> function) {
  loop.CancelTimer(servable->timer);
  servable->timer = loop.AddTimer(loop.now_ns() + after_ns, [servable, function = std::move(function)] {
    servable->timer = 0;
    function();
  });
}

void Supervisor::State::Add(uint64_t id, ServableSpec spec) {
  servables.push_back(std::make_unique<Servable>());
  Servable* servable = servables.back().get();
  servable->id = id;
  servable->spec = std::move(spec);
  const bool runs = std::any_of(servables.begin(), servables.end(), [servable](const auto& one) {
    return one.get() != servable && one->spec.name == servable->spec.name &&
           one->spec.version == servable->spec.version;
  });
  if (runs || stopping) {
    Fail(servable, "servable '" + servable->spec.name + "' version " + std::to_string(servable->spec.version) +
                       (runs ? " is running already" : " is not started: the server is stopping"));
    return;
  }
  for (const WorkerSpec& worker : servable->spec.workers) {
    if (servable->leaving()) {
      return;  // the one before could not be launched
    }
    workers.push_back(std::make_unique<Worker>(this, servable, worker));
    if (!worker.extra) {
      workers.back()->Launch();
    }
  }
}

void Supervisor::State::OpenIfReady(Servable* servable) {
  bool all_were_ready = true;
  bool one_runs = false;
  for (const auto& worker : workers) {
    if (worker->servable == servable) {
      all_were_ready &= worker->was_ready;
      one_runs |= worker->phase == Phase::kRunning;
    }
  }
  if (!all_were_ready || !one_runs || servable->stage != Servable::Stage::kJoining) {
    return;
  }
  servable->stage = Servable::Stage::kOpening;
  // Every loop knows the workers before any may find them. And every loop has finished what it was looking up before
  // another version may be told to leave (VersionGate).
  front_end->Barrier([this, id = servable->id] {
    Later(id, [this](Servable* opening) {
      if (opening->leaving()) {
        return;
      }
      opening->gate->store(true, std::memory_order_release);
      front_end->Barrier([this, id = opening->id] {
        Later(id, [this](Servable* open) {
          if (open->leaving()) {
            return;
          }
          open->stage = Servable::Stage::kServing;
          LogEvent(LogLevel::kInfo, "version_joined")
              .With("servable", open->spec.name)
              .With("version", open->spec.version);
          {
            const std::lock_guard<std::mutex> lock(mutex);
            news[open->id].progress = Progress::kReady;
          }
          Publish();
        });
      });
    });
  });
}

void Supervisor::State::Fail(Servable* servable, const std::string& why) {
  LogEvent(LogLevel::kInfo, "version_failed")  // whoever asked for it is told
      .With("servable", servable->spec.name)
      .With("version", servable->spec.version)
      .With("why", why);
  {
    const std::lock_guard<std::mutex> lock(mutex);
    News& mine = news[servable->id];
    mine.progress = Progress::kFailed;
    mine.text = why;
  }
  EndWorkers(servable, true);
  Publish();
}

void Supervisor::State::Retire(Servable* servable, int64_t drain_ns) {
  if (servable->leaving()) {
    return;
  }
  servable->stage = Servable::Stage::kDraining;
  servable->gate->store(false, std::memory_order_release);
  LogEvent(LogLevel::kInfo, "version_leaving")
      .With("servable", servable->spec.name)
      .With("version", servable->spec.version);
  front_end->WhenDrained(servable->spec.name, servable->spec.version, [this, id = servable->id] {
    Later(id, [this](Servable* drained) { EndWorkers(drained, false); });
  });
  SetTimer(servable, drain_ns, [this, servable] {
    LogEvent(LogLevel::kWarning, "drain_timeout")
        .With("servable", servable->spec.name)
        .With("version", servable->spec.version);
    EndWorkers(servable, true);
  });
  Publish();
}

void Supervisor::State::EndWorkers(Servable* servable, bool at_once) {
  if (servable->stage == Servable::Stage::kEnding) {
    return;
  }
  servable->stage = Servable::Stage::kEnding;
  const auto kill_all = [this, servable] {
    for (const auto& worker : workers) {
      if (worker->servable == servable) {
        worker->process.Signal(SIGKILL);
      }
    }
  };
  for (const auto& worker : workers) {
    if (worker->servable == servable) {
      worker->SendStop();
    }
  }
  if (at_once) {
    loop.CancelTimer(std::exchange(servable->timer, 0));
    kill_all();
  } else {
    SetTimer(servable, options.grace_ns, kill_all);
  }
  Later(servable->id, [this](Servable* one) { RemoveIfGone(one); });
}

void Supervisor::State::RemoveIfGone(Servable* servable) {
  const bool alive_still = std::any_of(workers.begin(), workers.end(), [servable](const auto& worker) {
    return worker->servable == servable && worker->process.running();
  });
  if (servable->stage != Servable::Stage::kEnding || alive_still || stopping) {
    return;
  }
  loop.CancelTimer(servable->timer);
  front_end->DropVersion(servable->spec.name, servable->spec.version);
  LogEvent(LogLevel::kInfo, "version_left")
      .With("servable", servable->spec.name)
      .With("version", servable->spec.version);
  const uint64_t id = servable->id;
  std::erase_if(workers, [servable](const auto& worker) { return worker->servable == servable; });
  std::erase_if(servables, [servable](const auto& one) { return one.get() == servable; });
  Publish();
  // The loops' share of the memory goes with their next turn.
  front_end->Barrier([this, id] {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      news[id].gone = true;
    }
    changed.notify_all();
  });
}

void Supervisor::State::StartExtras(Servable* servable, const ServableSignature& signature) {
  if (std::exchange(servable->extras_started, true)) {
    return;
  }
  const bool needed = std::any_of(signature.methods.begin(), signature.methods.end(),
                                  [](const MethodSignature& method) { return method.has_python; });
  for (const auto& worker : workers) {
    if (worker->servable != servable || !worker->spec.extra || servable->leaving()) {
      continue;
    }
    if (needed) {
      worker->Launch();
    } else {
      worker->phase = Phase::kNotNeeded;
      worker->was_ready = true;  // nobody waits for it
      LogEvent(LogLevel::kInfo, "worker_not_needed")
          .With("worker", worker->spec.label)
          .With("why", "no method has a Python stage");
    }
  }
}

// The worker gets a channel to each of the other kind. What cannot be told to a process that is ending need not be.
void Supervisor::State::Introduce(Worker* worker) {
  if (!worker->servable->has_models) {
    return;
  }
  for (const auto& other : workers) {
    if (other->servable != worker->servable || other->spec.extra == worker->spec.extra) {
      continue;
    }
    const Worker& device = worker->spec.extra ? *other : *worker;
    const Worker& extra = worker->spec.extra ? *worker : *other;
    if (device.phase != Phase::kRunning || !device.control || !extra.control) {
      continue;
    }
    const Status status = ConnectWorkers(device.AsEnd(), extra.AsEnd(), extra.rows, worker->servable->description,
                                         front_end->reply_slab_bytes());
    if (!status.ok()) {
      LogEvent(LogLevel::kError, "workers_not_connected")
          .With("worker", extra.spec.label)
          .With("device_worker", device.spec.label)
          .With("why", status.message());
    }
  }
}

void Supervisor::State::SayGone(const Worker& worker) {
  for (const auto& other : workers) {
    if (other->servable == worker.servable && other->spec.extra != worker.spec.extra && other->control) {
      SendGone(other->control.get(), worker.id);
    }
  }
}

bool Supervisor::State::ExtrasRun(const Servable* servable) const {
  return std::any_of(workers.begin(), workers.end(), [servable](const auto& worker) {
    return worker->servable == servable && worker->spec.extra && worker->process.running();
  });
}

void Supervisor::State::StopDevicesAfterExtras(const Servable* servable) {
  if (ExtrasRun(servable)) {
    return;
  }
  for (const auto& worker : workers) {
    if (worker->servable == servable && std::exchange(worker->stop_after_extras, false)) {
      worker->SendStop();
    }
  }
}

void Supervisor::State::Worker::Launch() {
  said.clear();
  ended_because.clear();
  oom_kills = OomKills();
  attachment = WorkerAttachment();
  id = state->next_worker++;
  phase = Phase::kStarting;
  UniqueFd theirs;
  Status status = state->front_end->MakeAttachment(&servable->request_slabs, &attachment);
  attachment.extra = spec.extra;
  if (status.ok()) {
    doorbell.Reset(fcntl(attachment.worker_doorbell.get(), F_DUPFD_CLOEXEC, 0));
  }
  if (status.ok() && spec.extra) {
    rows = SharedMemory();
    status = SharedMemory::Create("serving rows", state->front_end->reply_slab_bytes(), &rows);
  }
  if (status.ok()) {
    status = SharedMemory::Map(UniqueFd(fcntl(attachment.channels[0].control.fd(), F_DUPFD_CLOEXEC, 0)), &board_memory);
  }
  if (status.ok()) {
    status = MakeControlPair(&control, &theirs);
  }
  UniqueFd output;
  if (status.ok() && !spec.log_file.empty()) {
    status = restarts > 0 ? Status::Ok() : log_file.Open(spec.log_file, false);
    if (status.ok()) {
      status = log_pipe.Open(&output);
    }
  }
  if (status.ok()) {
    WorkerCommand command{servable->spec.command, servable->spec.environment, output ? output.get() : -1};
    status = process.Start(command, std::move(theirs));
    pid = static_cast<int>(process.pid());
  }
  if (status.ok() && servable->spec.key != nullptr && !spec.extra) {  // extra workers load no model
    status = SendControl(control.get(), 'K', servable->spec.key->text());
  }
  if (status.ok()) {
    // Small, and the socket's buffer is empty: does not block.
    status = SendControl(control.get(), 'S', spec.config_json, state->front_end->DescriptorsOf(attachment));
  }
  if (!status.ok()) {
    process.KillAndReap();
    control.Reset();
    Died(status.message());
    return;
  }
  state->loop.Add(process.pidfd(), EPOLLIN, &pid_events);
  state->loop.Add(control.get(), EPOLLIN, &control_events);
  LogEvent(LogLevel::kInfo, "worker_started").With("worker", spec.label).With("pid", process.pid());
  if (spec.extra) {
    state->Introduce(this);
  }
  state->Publish();
}

void Supervisor::State::Worker::OnControl() {
  ControlMessage message;
  if (!ReceiveControl(control.get(), &message).ok()) {
    CloseControl();  // the process is ending: its pidfd tells how
    return;
  }
  if (message.kind == 'R' && phase == Phase::kStarting && !servable->leaving()) {
    Ready(message.body);
  } else if (message.kind == 'F') {
    said = message.body;
  }
}

void Supervisor::State::Worker::Ready(const std::string& body) {
  ServableSignature signature;
  signature.name = servable->spec.name;
  signature.version = servable->spec.version;
  if (Status status = ParseSignature(body, &signature); !status.ok()) {
    said = status.message();
    process.Signal(SIGKILL);
    return;
  }
  phase = Phase::kRunning;
  was_ready = true;
  ready_at_ns = state->loop.now_ns();
  state->front_end->AddWorker(id, signature, std::move(attachment), servable->gate);
  LogEvent(LogLevel::kInfo, "worker_ready").With("worker", spec.label).With("pid", process.pid());
  if (!spec.extra) {
    {
      const std::lock_guard<std::mutex> lock(state->mutex);
      state->news[servable->id].text = body;
    }
    servable->has_models = signature.has_models;
    servable->description = body;
    state->Introduce(this);
    state->StartExtras(servable, signature);
  }
  state->OpenIfReady(servable);
  watch_every_ns = kWatchNs;
  const auto at_least_every = [this](int64_t ns) { watch_every_ns = std::clamp(ns, kWatchCloselyNs, watch_every_ns); };
  if (state->options.silence_ns > 0) {
    at_least_every(state->options.silence_ns / 4);
  }
  if (signature.shortest_timeout_s > 0) {
    at_least_every(static_cast<int64_t>(std::min(signature.shortest_timeout_s, 3600.0) * 1e8));
  }
  silent_ns = 0;
  LookAgain();
  state->Publish();
}

void Supervisor::State::Worker::LookAgain() {
  watch_timer = state->loop.AddTimer(state->loop.now_ns() + watch_every_ns, [this, looked_at = id] {
    watch_timer = 0;
    if (looked_at == id && phase == Phase::kRunning && !state->stopping) {
      Watch();
    }
  });
}

// Time is counted in looks, not by the clock: when this process itself was stopped, nobody is to blame for the gap.
void Supervisor::State::Worker::Watch() {
  const auto* board = reinterpret_cast<const WorkerBoard*>(board_memory.base() + ChannelLayout::kBoard);
  const int64_t now_ns = state->loop.now_ns();
  for (uint32_t slot = 0; slot < kTimedSlots; ++slot) {
    const int64_t limit_ns = board->limit_ns[slot].load(std::memory_order_relaxed);
    if (limit_ns != 0 && now_ns > limit_ns) {
      End(static_cast<uint8_t>(kFirstTimedMark + slot), "it was ended: a call took longer than its method's time-out",
          SIGTERM);
      return;
    }
  }
  const uint64_t now_beats = board->beats.load(std::memory_order_relaxed);
  silent_ns = std::exchange(beats, now_beats) == now_beats ? silent_ns + watch_every_ns : 0;
  if (state->options.silence_ns > 0 && silent_ns >= state->options.silence_ns) {
    End(0,
        "it was killed: its process showed no sign of life for " + std::to_string(silent_ns / kNanosPerSecond) +
            " s (stopped, or starved of memory)",
        SIGKILL);
    return;
  }
  LookAgain();
}

// What runs with the mark `running` is answered now, all else once the process is gone.
void Supervisor::State::Worker::End(uint8_t running, const std::string& why, int signal) {
  phase = Phase::kEnding;
  ended_because = why;
  state->front_end->GiveUp(id, running);
  process.Signal(signal);
  watch_timer = state->loop.AddTimer(state->loop.now_ns() + state->options.terminate_ns, [this, ended = id] {
    watch_timer = 0;
    if (ended == id && phase == Phase::kEnding) {
      process.Signal(SIGKILL);
    }
  });
  state->Publish();
}

void Supervisor::State::Worker::OnExit() {
  WorkerExit exit;
  const int pidfd = process.pidfd();
  process.KillGroup();  // what it has forked may hold the other end of the socket
  pollfd words{control.get(), POLLIN, 0};
  if (control && poll(&words, 1, 0) > 0) {
    OnControl();  // its last words may still be in the socket
  }
  state->loop.Remove(pidfd, &pid_events);
  if (!process.TryReap(&exit)) {
    state->loop.Add(pidfd, EPOLLIN, &pid_events);
    return;
  }
  CloseControl();
  log_pipe.Drain();
  std::string how = "its process " + exit.Describe();
  if (exit.by_signal && exit.code == SIGKILL && ended_because.empty() && OomKills() > oom_kills) {
    how += ", perhaps by the kernel for want of memory: it has killed a process meanwhile";
  }
  Died(ended_because.empty() ? how : ended_because);
}

void Supervisor::State::Worker::CloseControl() {
  if (control) {
    state->loop.Remove(control.get(), &control_events);
    control.Reset();
  }
}

void Supervisor::State::CountDeath() {
  const int64_t now_ns = loop.now_ns();
  deaths_ns.push_back(now_ns);
  while (now_ns - deaths_ns.front() > kManyDeathsWindowNs) {
    deaths_ns.pop_front();
  }
  if (deaths_ns.size() >= kManyDeaths && now_ns - kManyDeathsEveryNs >= many_deaths_told_ns) {
    many_deaths_told_ns = now_ns;
    const size_t running = static_cast<size_t>(std::count_if(
        workers.begin(), workers.end(), [](const auto& worker) { return worker->phase == Phase::kRunning; }));
    LogEvent(LogLevel::kError, "workers_die_often")
        .With("deaths_in_last_minute", deaths_ns.size())
        .With("workers", workers.size())
        .With("running", running);
  }
}

void Supervisor::State::Worker::Died(const std::string& how) {
  state->loop.CancelTimer(std::exchange(watch_timer, 0));
  const Phase before = std::exchange(phase, state->stopping ? Phase::kStopped : Phase::kWaiting);
  if (before == Phase::kRunning || before == Phase::kEnding) {
    state->front_end->RemoveWorker(id, "the worker of " + spec.label + " ended while it had the request: " + how);
  }
  state->SayGone(*this);
  if (state->stopping || servable->leaving()) {
    phase = Phase::kStopped;
    LogEvent(LogLevel::kInfo, "worker_ended").With("worker", spec.label).With("how", how);
    state->StopDevicesAfterExtras(servable);
    state->Later(servable->id, [s = state](Servable* one) { s->RemoveIfGone(one); });
    state->Publish();
    return;
  }
  if (!was_ready) {
    const std::string tail =
        spec.log_file.empty() || !said.empty() ? "" : TailOfFile(spec.log_file, state->options.log_tail_bytes);
    phase = Phase::kFailed;
    state->Fail(servable, "worker of " + spec.label + ": " + (said.empty() ? how : said) +
                              (tail.empty() ? "" : "\nThe last lines of its log " + spec.log_file + ":\n" + tail));
    return;
  }
  const bool was_healthy = (before == Phase::kRunning || before == Phase::kEnding) &&
                           state->loop.now_ns() - ready_at_ns >= state->options.healthy_after_ns;
  backoff_ns = backoff_ns == 0 || was_healthy ? state->options.first_backoff_ns
                                              : std::min(backoff_ns * 2, state->options.max_backoff_ns);
  ++restarts;
  {
    LogEvent event(LogLevel::kError, "worker_lost");
    event.With("servable", servable->spec.name).With("version", servable->spec.version);
    event.With("worker", spec.label).With("pid", pid).With("restarts", restarts);
    event.With("restart_in_ms", backoff_ns / kNanosPerMilli).With("cause", said.empty() ? how : said);
    if (!spec.log_file.empty()) {
      event.With("log", spec.log_file).With("log_tail", TailOfFile(spec.log_file, state->options.log_tail_bytes));
    }
  }
  state->CountDeath();
  restart_timer = state->loop.AddTimer(state->loop.now_ns() + backoff_ns, [this] {
    restart_timer = 0;
    if (!state->stopping) {
      Launch();
    }
  });
  state->Publish();
}

void Supervisor::State::Worker::SendStop() {
  state->loop.CancelTimer(std::exchange(restart_timer, 0));
  if (phase == Phase::kWaiting) {
    phase = Phase::kStopped;
  }
  if (!control) {
    return;
  }
  if (!spec.extra && state->ExtrasRun(servable)) {
    stop_after_extras = true;
    return;
  }
  // A worker that is still starting does not read its socket: it has nothing to answer.
  if (phase == Phase::kStarting || !SendControl(control.get(), 'X', "").ok()) {
    process.Signal(SIGKILL);
  }
}

Supervisor::Supervisor(FrontEnd* front_end, SupervisorOptions options)
    : state_(std::make_unique<State>(front_end, options)) {}

Supervisor::~Supervisor() { Stop(0); }

void Supervisor::Start() {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  state_->thread = std::thread([state = state_.get()] {
    pthread_setname_np(pthread_self(), "serving-super");
    state->loop.Run();
  });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

uint64_t Supervisor::Add(ServableSpec spec) {
  uint64_t id = 0;
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    id = state_->next_version++;
    state_->news[id] = {};
  }
  state_->loop.Post([state = state_.get(), id, spec = std::move(spec)] { state->Add(id, spec); });
  return id;
}

Supervisor::Progress Supervisor::WaitReady(int64_t timeout_ns, std::string* error) {
  std::vector<uint64_t> all;
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    for (const auto& [id, news] : state_->news) {
      if (!news.gone || news.progress == Progress::kFailed) {
        all.push_back(id);
      }
    }
  }
  return WaitReady(all, timeout_ns, error);
}

Supervisor::Progress Supervisor::WaitReady(std::span<const uint64_t> versions, int64_t timeout_ns, std::string* error) {
  std::unique_lock<std::mutex> lock(state_->mutex);
  Progress progress = Progress::kStarting;
  const auto settled = [&] {
    progress = Progress::kReady;
    for (const uint64_t id : versions) {
      const auto known = state_->news.find(id);
      const bool failed = known != state_->news.end() && known->second.progress == Progress::kFailed;
      if (failed || known == state_->news.end() || known->second.gone) {
        progress = Progress::kFailed;
        *error = failed ? known->second.text : "the servable was stopped";
        return true;
      }
      if (known->second.progress == Progress::kStarting) {
        progress = Progress::kStarting;
      }
    }
    return progress == Progress::kReady;
  };
  state_->changed.wait_for(lock, std::chrono::nanoseconds(timeout_ns), settled);
  return progress;
}

void Supervisor::Retire(uint64_t version, int64_t drain_ns) {
  state_->loop.Post([state = state_.get(), version, drain_ns] {
    if (Servable* servable = state->Find(version)) {
      state->Retire(servable, drain_ns);
    }
  });
}

bool Supervisor::WaitGone(uint64_t version, int64_t timeout_ns) {
  std::unique_lock<std::mutex> lock(state_->mutex);
  const auto gone = [&] {
    const auto known = state_->news.find(version);
    return known == state_->news.end() || known->second.gone;
  };
  if (!state_->changed.wait_for(lock, std::chrono::nanoseconds(timeout_ns), gone)) {
    return false;
  }
  state_->news.erase(version);
  return true;
}

std::string Supervisor::Describe(uint64_t version) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  const auto known = state_->news.find(version);
  return known == state_->news.end() || known->second.progress == Progress::kFailed ? "" : known->second.text;
}

void Supervisor::Stop(int64_t grace_ns, const std::function<bool()>& hurried) {
  if (!state_->thread.joinable()) {
    return;
  }
  state_->loop.Post([state = state_.get()] {
    state->stopping = true;
    for (const auto& worker : state->workers) {
      worker->SendStop();
    }
    state->Publish();
  });
  const auto wait_for_all = [this](int64_t timeout_ns) {
    std::unique_lock<std::mutex> lock(state_->mutex);
    return state_->changed.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [this] { return state_->alive == 0; });
  };
  const int64_t until = RealClock().NowNs() + grace_ns;
  bool all_gone = wait_for_all(std::min(grace_ns, kHurryPollNs));
  while (!all_gone && RealClock().NowNs() < until && !(hurried && hurried())) {
    all_gone = wait_for_all(kHurryPollNs);
  }
  if (!all_gone) {
    state_->loop.Post([state = state_.get()] {
      for (const auto& worker : state->workers) {
        worker->process.Signal(SIGKILL);
      }
    });
    wait_for_all(10 * kNanosPerSecond);
  }
  state_->loop.Stop();
  state_->thread.join();
}

std::vector<Supervisor::WorkerState> Supervisor::Workers() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->published;
}

}  // namespace msserving
