#include "server/supervisor.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "base/log.h"
#include "net/event_loop.h"
#include "server/extra_workers.h"
#include "server/signature_json.h"
#include "tensor/control_socket.h"

namespace msserving {
namespace {

enum class Phase { kStarting, kRunning, kWaiting, kFailed, kStopped, kNotNeeded };

const char* NameOf(Phase phase) {
  switch (phase) {
    case Phase::kStarting: return "starting";
    case Phase::kRunning: return "running";
    case Phase::kWaiting: return "waiting to restart";
    case Phase::kFailed: return "failed";
    case Phase::kStopped: return "stopped";
    case Phase::kNotNeeded: return "not needed";
  }
  return "";
}

struct Servable {
  ServableSpec spec;
  std::vector<std::shared_ptr<SharedMemory>> request_slabs;  // survive the workers
  bool extras_started = false;
  bool has_models = false;
  std::string description;  // the latest that a device worker gave
};

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

  // Told to other threads; nothing is called under the mutex.
  std::mutex mutex;
  std::condition_variable changed;
  size_t added = 0;  // workers ever asked for
  size_t known = 0;  // of those, the ones the loop knows
  size_t ready_once = 0;
  size_t alive = 0;  // processes
  std::string failure;
  std::vector<WorkerState> published;

  void Publish();
  void Fail(const std::string& why);
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
      : state(s), servable(v), spec(w), pid_events(this), control_events(this) {}

  void Launch();
  void OnControl();
  void OnExit();
  void Ready(const std::string& body);
  void Died(const std::string& how);
  void SendStop();
  void CloseControl();
  WorkerEnd End() const { return {id, control.get(), doorbell.get()}; }

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
  std::string said;  // the failure that the worker itself reported
  WorkerProcess process;
  UniqueFd control;
  WorkerAttachment attachment;
  UniqueFd doorbell;  // the process's
  SharedMemory rows;  // of an extra worker: what it hands to device workers
  bool stop_after_extras = false;
  PidEvents pid_events;
  ControlEvents control_events;
};

void Supervisor::State::Publish() {
  // Ready while every servable has a running worker.
  bool all = !servables.empty();
  for (const auto& servable : servables) {
    all &= std::any_of(workers.begin(), workers.end(), [&servable](const auto& worker) {
      return worker->servable == servable.get() && worker->phase == Phase::kRunning &&
             !(worker->spec.extra && servable->has_models);
    });
  }
  front_end->SetReady(all && !stopping);
  std::vector<WorkerState> now;
  size_t ready = 0;
  size_t running = 0;
  for (const auto& worker : workers) {
    now.push_back(
        {worker->spec.label, NameOf(worker->phase), static_cast<int>(worker->process.pid()), worker->restarts});
    ready += worker->was_ready ? 1 : 0;
    running += worker->process.running() ? 1 : 0;
  }
  {
    const std::lock_guard<std::mutex> lock(mutex);
    published = std::move(now);
    known = workers.size();
    ready_once = ready;
    alive = running;
  }
  changed.notify_all();
}

void Supervisor::State::Fail(const std::string& why) {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (failure.empty()) {
      failure = why;
    }
  }
  changed.notify_all();
}

void Supervisor::State::StartExtras(Servable* servable, const ServableSignature& signature) {
  if (std::exchange(servable->extras_started, true)) {
    return;
  }
  const bool needed = std::any_of(signature.methods.begin(), signature.methods.end(),
                                  [](const MethodSignature& method) { return method.has_python; });
  for (const auto& worker : workers) {
    if (worker->servable != servable || !worker->spec.extra) {
      continue;
    }
    if (needed) {
      worker->Launch();
    } else {
      worker->phase = Phase::kNotNeeded;
      worker->was_ready = true;  // nobody waits for it
      MSSERVING_LOG(kInfo, "worker of " << worker->spec.label << " is not started: no method has a Python stage");
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
    const Status status = ConnectWorkers(device.End(), extra.End(), extra.rows, worker->servable->description,
                                         front_end->reply_slab_bytes());
    if (!status.ok()) {
      MSSERVING_LOG(kError, "no channel between the workers of " << device.spec.label << " and " << extra.spec.label
                                                                 << ": " << status.message());
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
    status = MakeControlPair(&control, &theirs);
  }
  if (status.ok()) {
    WorkerCommand command{servable->spec.command, servable->spec.environment, spec.log_file};
    status = process.Start(command, std::move(theirs), restarts > 0);
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
  if (message.kind == 'R' && phase == Phase::kStarting) {
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
  state->front_end->AddWorker(id, signature, std::move(attachment));
  MSSERVING_LOG(kInfo, "worker of " << spec.label << " is ready (process " << process.pid() << ")");
  if (!spec.extra) {
    servable->has_models = signature.has_models;
    servable->description = body;
    state->Introduce(this);
    state->StartExtras(servable, signature);
  }
  state->Publish();
}

void Supervisor::State::Worker::OnExit() {
  WorkerExit exit;
  const int pidfd = process.pidfd();
  if (control) {
    OnControl();  // its last words may still be in the socket
  }
  state->loop.Remove(pidfd, &pid_events);
  if (!process.TryReap(&exit)) {
    state->loop.Add(pidfd, EPOLLIN, &pid_events);
    return;
  }
  CloseControl();
  Died("its process " + exit.Describe());
}

void Supervisor::State::Worker::CloseControl() {
  if (control) {
    state->loop.Remove(control.get(), &control_events);
    control.Reset();
  }
}

void Supervisor::State::Worker::Died(const std::string& how) {
  const Phase before = std::exchange(phase, state->stopping ? Phase::kStopped : Phase::kWaiting);
  const std::string what = "worker of " + spec.label + ": " + (said.empty() ? how : said);
  if (before == Phase::kRunning) {
    state->front_end->RemoveWorker(id, "the worker of " + spec.label + " ended while it had the request: " + how);
  }
  state->SayGone(*this);
  if (state->stopping) {
    state->StopDevicesAfterExtras(servable);
    state->Publish();
    return;
  }
  std::string text = what;
  if (said.empty()) {
    const std::string tail = spec.log_file.empty() ? "" : TailOfFile(spec.log_file, state->options.log_tail_bytes);
    text += tail.empty() ? "" : "\nThe last lines of its log " + spec.log_file + ":\n" + tail;
  }
  if (!was_ready) {
    phase = Phase::kFailed;
    state->Fail(text);
    state->Publish();
    return;
  }
  const bool was_healthy =
      before == Phase::kRunning && state->loop.now_ns() - ready_at_ns >= state->options.healthy_after_ns;
  backoff_ns = backoff_ns == 0 || was_healthy ? state->options.first_backoff_ns
                                              : std::min(backoff_ns * 2, state->options.max_backoff_ns);
  ++restarts;
  MSSERVING_LOG(kError, text << "\nIt is started again in " << backoff_ns / kNanosPerMilli << " ms");
  state->loop.AddTimer(state->loop.now_ns() + backoff_ns, [this] {
    if (!state->stopping) {
      Launch();
    }
  });
  state->Publish();
}

void Supervisor::State::Worker::SendStop() {
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

void Supervisor::Add(ServableSpec spec) {
  {
    const std::lock_guard<std::mutex> lock(state_->mutex);
    state_->added += spec.workers.size();
  }
  state_->loop.Post([state = state_.get(), spec = std::move(spec)]() mutable {
    state->servables.push_back(std::make_unique<Servable>());
    Servable* servable = state->servables.back().get();
    servable->spec = std::move(spec);
    for (const WorkerSpec& worker : servable->spec.workers) {
      state->workers.push_back(std::make_unique<State::Worker>(state, servable, worker));
      if (!worker.extra) {
        state->workers.back()->Launch();
      }
    }
  });
}

Supervisor::Progress Supervisor::WaitReady(int64_t timeout_ns, std::string* error) {
  std::unique_lock<std::mutex> lock(state_->mutex);
  const auto settled = [this] {
    return !state_->failure.empty() || (state_->known == state_->added && state_->ready_once == state_->added);
  };
  if (!state_->changed.wait_for(lock, std::chrono::nanoseconds(timeout_ns), settled)) {
    return Progress::kStarting;
  }
  *error = state_->failure;
  return error->empty() ? Progress::kReady : Progress::kFailed;
}

void Supervisor::Stop(int64_t grace_ns) {
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
  if (!wait_for_all(grace_ns)) {
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
