#include "server/supervisor_state.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>

#include <algorithm>
#include <utility>

#include "base/log_event.h"
#include "server/signature_json.h"
#include "tensor/control_socket.h"
#include "tensor/exchange.h"

namespace msserving {
namespace {

// So many deaths in a minute are told in a line of their own, once in ten seconds.
constexpr size_t kManyDeaths = 5;
constexpr int64_t kManyDeathsWindowNs = 60 * kNanosPerSecond;
constexpr int64_t kManyDeathsEveryNs = 10 * kNanosPerSecond;

}  // namespace

void Supervisor::State::Worker::Launch() {
  said.clear();
  ended_because.clear();
  given_up = 0;
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
    static_assert(1 + 4 * kMaxIoThreads <= kMaxControlFds, "FrontEnd::DescriptorsOf()");
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
    SaidReady(message.body);
  } else if (message.kind == 'F') {
    said = message.body;
  }
}

void Supervisor::State::Worker::SaidReady(const std::string& body) {
  signature = ServableSignature();
  signature.name = servable->spec.name;
  signature.version = servable->spec.version;
  if (Status status = ParseSignature(body, &signature); !status.ok()) {
    said = status.message();
    process.Signal(SIGKILL);
    return;
  }
  description = body;
  phase = Phase::kProbing;
  ready_at_ns = state->loop.now_ns();
  state->front_end->AddWorker(id, signature, std::move(attachment), servable->gate);
  state->front_end->ProbeWorker(id, [s = state, probed = id](const Status& status) {
    s->loop.Post([s, probed, status] {
      for (const auto& worker : s->workers) {
        if (worker->id == probed && worker->phase == Phase::kProbing) {
          worker->Probed(status);
        }
      }
    });
  });
  WatchProbe();
  state->Publish();
}

void Supervisor::State::Worker::Probed(const Status& status) {
  if (status.ok()) {
    Join();
  } else {
    End(0, "it was killed: a probe through it failed: " + status.message(), SIGKILL);
  }
}

void Supervisor::State::Worker::Join() {
  phase = Phase::kRunning;
  was_ready = true;
  state->front_end->JoinWorker(id);
  LogEvent(LogLevel::kInfo, "worker_ready").With("worker", spec.label).With("pid", process.pid());
  if (!spec.extra) {
    {
      const std::lock_guard<std::mutex> lock(state->mutex);
      state->news[servable->id].text = description;
    }
    servable->has_models = signature.has_models;
    servable->description = description;
    state->Introduce(this);
    state->StartExtras(servable, signature);
  }
  state->OpenIfReady(servable);
  WatchFromNow();
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
  Died(ended_because.empty() ? how : ended_because, !exit.by_signal && exit.code == kRanksLostExitCode);
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

void Supervisor::State::Worker::Died(const std::string& how, bool lost_ranks) {
  state->loop.CancelTimer(std::exchange(watch_timer, 0));
  const Phase before = std::exchange(phase, state->stopping ? Phase::kStopped : Phase::kWaiting);
  if (before == Phase::kProbing || before == Phase::kRunning || before == Phase::kEnding) {
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
  const bool was_running = before == Phase::kRunning || before == Phase::kEnding;
  const bool was_healthy =
      lost_ranks || (was_running && state->loop.now_ns() - ready_at_ns >= state->options.healthy_after_ns);
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
  if (phase == Phase::kStarting && servable->spec.takes_leave) {
    process.Signal(SIGTERM);
    KillLater(Phase::kStarting);
  } else if (phase == Phase::kStarting || !SendControl(control.get(), 'X', "").ok()) {
    process.Signal(SIGKILL);
  }
}

}  // namespace msserving
