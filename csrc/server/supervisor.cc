#include "server/supervisor.h"

#include <signal.h>

#include <algorithm>
#include <future>
#include <utility>

#include "base/thread.h"
#include "server/supervisor_state.h"

namespace msserving {
namespace {

constexpr int64_t kHurryPollNs = 20 * kNanosPerMilli;

}  // namespace

Supervisor::Supervisor(FrontEnd* front_end, SupervisorOptions options)
    : state_(std::make_unique<State>(front_end, options)) {}

Supervisor::~Supervisor() { Stop(0); }

void Supervisor::Start() {
  state_->thread = StartThread("serving-super", [state = state_.get()] { state->loop.Run(); });
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
    if (State::Servable* servable = state->Find(version)) {
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
  // What the loops were asked to tell this object is told, or forgotten with its worker.
  std::promise<void> forgotten;
  state_->front_end->Barrier([&forgotten] { forgotten.set_value(); });
  forgotten.get_future().wait();
  state_->loop.Stop();
  state_->thread.join();
}

std::vector<Supervisor::WorkerState> Supervisor::Workers() {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->published;
}

}  // namespace msserving
