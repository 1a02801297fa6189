#include "server/supervisor_state.h"

#include <algorithm>
#include <utility>

#include "base/log_event.h"

namespace msserving {

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
      SendGone(other->control.get(), worker.id, worker.given_up);
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

}  // namespace msserving
