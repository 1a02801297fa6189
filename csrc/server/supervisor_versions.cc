#include "server/supervisor_state.h"

#include <signal.h>

#include <algorithm>
#include <utility>

#include "base/log_event.h"

namespace msserving {

const char* Supervisor::State::NameOf(Phase phase) {
  switch (phase) {
    case Phase::kStarting: return "starting";
    case Phase::kProbing: return "probing";
    case Phase::kRunning: return "running";
    case Phase::kEnding: return "ending";
    case Phase::kWaiting: return "waiting to restart";
    case Phase::kFailed: return "failed";
    case Phase::kStopped: return "stopped";
    case Phase::kNotNeeded: return "not needed";
  }
  return "";
}

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

Supervisor::State::Servable* Supervisor::State::Find(uint64_t id) {
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

}  // namespace msserving
