#include "server/supervisor.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <sstream>
#include <thread>
#include <utility>

#include "base/log.h"
#include "net/event_loop.h"
#include "server/signature_json.h"
#include "tensor/control_socket.h"
#include "tensor/exchange.h"
#include "tensor/shared_memory.h"

namespace msserving {
namespace {

enum class Phase { kStarting, kRunning, kEnding, kWaiting, kFailed, kStopped };

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
  }
  return "";
}

struct Servable {
  ServableSpec spec;
  std::vector<std::shared_ptr<SharedMemory>> request_slabs;  // survive the workers
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
  std::deque<int64_t> deaths_ns;  // of the last minute
  int64_t many_deaths_told_ns = INT64_MIN;

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
  void CountDeath();
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
  void Watch();
  void LookAgain();
  void End(uint8_t running, const std::string& why, int signal);
  std::string Fields() const;
  void QuoteLog() const;

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
  uint64_t beats = 0;     // the board's, when last looked at
  int64_t silent_ns = 0;  // how long they have been that
  LogFile log_file;
  LogPipe log_pipe;
  WorkerProcess process;
  int pid = 0;  // of the current or last process
  UniqueFd control;
  WorkerAttachment attachment;
  PidEvents pid_events;
  ControlEvents control_events;
};

void Supervisor::State::Publish() {
  // Ready while every servable has a running worker.
  bool all = !servables.empty();
  for (const auto& servable : servables) {
    all &= std::any_of(workers.begin(), workers.end(), [&servable](const auto& worker) {
      return worker->servable == servable.get() && worker->phase == Phase::kRunning;
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

void Supervisor::State::Worker::Launch() {
  said.clear();
  ended_because.clear();
  oom_kills = OomKills();
  attachment = WorkerAttachment();
  id = state->next_worker++;
  phase = Phase::kStarting;
  UniqueFd theirs;
  Status status = state->front_end->MakeAttachment(&servable->request_slabs, &attachment);
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
  if (status.ok() && servable->spec.key != nullptr) {
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
  MSSERVING_LOG(kInfo, "worker is ready; " << Fields());
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
  state->loop.AddTimer(state->loop.now_ns() + watch_every_ns, [this, looked_at = id] {
    if (looked_at == id && phase == Phase::kRunning && !state->stopping) {
      Watch();
    }
  });
}

// Time is counted in looks, not by the clock: when this process itself was stopped, nobody is to blame for the gap.
void Supervisor::State::Worker::Watch() {
  const auto* board = reinterpret_cast<const WorkerBoard*>(board_memory.base() + ChannelLayout::kBoard);
  const int64_t now_ns = state->loop.now_ns();
  for (const uint8_t mark : {kDeviceMark, kPythonMark}) {
    const int64_t limit_ns = board->limit_ns[mark - kDeviceMark].load(std::memory_order_relaxed);
    if (limit_ns != 0 && now_ns > limit_ns) {
      End(static_cast<uint8_t>(mark + kTimedMark), "it was ended: a call took longer than its method's time-out",
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
  state->loop.AddTimer(state->loop.now_ns() + state->options.terminate_ns, [this, ended = id] {
    if (ended == id && phase == Phase::kEnding) {
      process.Signal(SIGKILL);
    }
  });
  state->Publish();
}

std::string Supervisor::State::Worker::Fields() const {
  return "servable=" + servable->spec.name + " version=" + std::to_string(servable->spec.version) + " worker=\"" +
         spec.label + "\" pid=" + std::to_string(pid);
}

// Its last lines, each as a line of our own log.
void Supervisor::State::Worker::QuoteLog() const {
  const std::string tail = spec.log_file.empty() ? "" : TailOfFile(spec.log_file, state->options.log_tail_bytes);
  std::istringstream lines(tail);
  for (std::string line; std::getline(lines, line);) {
    MSSERVING_LOG(kError, spec.label << " | " << line);
  }
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
    MSSERVING_LOG(kError, "workers die often; deaths_in_last_minute=" << deaths_ns.size() << " workers="
                                                                      << workers.size() << " running=" << running);
  }
}

void Supervisor::State::Worker::Died(const std::string& how) {
  const Phase before = std::exchange(phase, state->stopping ? Phase::kStopped : Phase::kWaiting);
  if (before == Phase::kRunning || before == Phase::kEnding) {
    state->front_end->RemoveWorker(id, "the worker of " + spec.label + " ended while it had the request: " + how);
  }
  if (state->stopping) {
    state->Publish();
    return;
  }
  if (!was_ready) {
    const std::string tail =
        spec.log_file.empty() || !said.empty() ? "" : TailOfFile(spec.log_file, state->options.log_tail_bytes);
    phase = Phase::kFailed;
    state->Fail("worker of " + spec.label + ": " + (said.empty() ? how : said) +
                (tail.empty() ? "" : "\nThe last lines of its log " + spec.log_file + ":\n" + tail));
    state->Publish();
    return;
  }
  const bool was_healthy = (before == Phase::kRunning || before == Phase::kEnding) &&
                           state->loop.now_ns() - ready_at_ns >= state->options.healthy_after_ns;
  backoff_ns = backoff_ns == 0 || was_healthy ? state->options.first_backoff_ns
                                              : std::min(backoff_ns * 2, state->options.max_backoff_ns);
  ++restarts;
  MSSERVING_LOG(kError, "worker died and is started again; "
                            << Fields() << " restarts=" << restarts << " backoff_ms=" << backoff_ns / kNanosPerMilli
                            << " log=\"" << spec.log_file << "\" cause=\"" << (said.empty() ? how : said) << "\"");
  QuoteLog();
  state->CountDeath();
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
      state->workers.back()->Launch();
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
