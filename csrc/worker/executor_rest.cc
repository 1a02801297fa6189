// Threads that find nothing to run: looking for a moment, arming the doorbells, blocking. Under the lock, but while a
// thread yields or blocks.
#include <sched.h>

#include <algorithm>
#include <utility>

#include "worker/executor.h"

namespace msserving {
namespace {

constexpr int64_t kRingFullRetryNs = kNanosPerMilli;

}  // namespace

// Before a thread disappears into a stage: the other one takes what is left, or the doorbells wake it for what comes.
void Executor::InviteOthers() {
  if (!sleepers_.any()) {
    return;
  }
  for (const Lane lane : {kDevice, kPython}) {
    if (Free(lane) && held_bytes_ <= options_.max_held_bytes && OldestReady(lane) != nullptr) {
      sleepers_.WakeOne();
      return;
    }
  }
  const bool requests = LaneForArrivals();
  if (requests || forwarder_ != nullptr) {
    Arm(requests);
    if ((requests && ArrivalsWait()) || (forwarder_ != nullptr && forwarder_->HasNews())) {
      sleepers_.WakeOne();
    }
  }
}

void Executor::Rest(Hand& hand, std::unique_lock<std::mutex>& lock) {
  if (!std::exchange(hand.looked, false) && MayLook()) {
    idle_since_ns_ = clock_.NowNs();
    if (spin_.budget_ns() > 0) {
      Look(hand, lock);
      return;
    }
  }
  Sleep(lock);
}

// Only while nothing runs and nothing waits for a time: a thread beside a stage has no request to be quick for.
bool Executor::MayLook() {
  return options_.spin_ns > 0 && !looking_ && !stopping_ && live_ == 0 && busy_ == std::array<uint32_t, kLanes>{} &&
         SleepLimitNs() == kNoDeadline;
}

// One thread at a time. Comes back with `looked` if nothing was found: the caller has to look at everything again
// before it blocks, since this gives up the lock and nobody wakes a thread that does not sleep.
void Executor::Look(Hand& hand, std::unique_lock<std::mutex>& lock) {
  const int64_t budget_ns = spin_.budget_ns();
  hand.looked = true;
  looking_ = true;
  int64_t waited_ns = 0;
  while (hand.looked && waited_ns < budget_ns && !ended_ && !stopping_) {
    lock.unlock();
    sched_yield();
    lock.lock();
    hand.looked = !NewsWait(true) && OldestReady(kDevice) == nullptr && OldestReady(kPython) == nullptr;
    waited_ns = clock_.NowNs() - idle_since_ns_;
  }
  looking_ = false;
  if (!hand.looked) {
    spin_.OnWait(waited_ns, false);
  }
}

void Executor::Sleep(std::unique_lock<std::mutex>& lock) {
  const bool requests = LaneForArrivals();
  Arm(requests);
  if (NewsWait(requests)) {
    return;
  }
  sleepers_.Sleep(lock, SleepLimitNs());
  ++stats_.wakeups;
  if (idle_since_ns_ != 0) {
    spin_.OnWait(clock_.NowNs() - std::exchange(idle_since_ns_, 0), true);
  }
}

int64_t Executor::SleepLimitNs() {
  int64_t limit_ns = kNoDeadline;
  for (const auto& queue : queues_) {
    const int64_t at = MayRun(*queue) ? queue->queue.ReadyAtNs() : kNoDeadline;
    if (at != kNoDeadline && held_bytes_ <= options_.max_held_bytes) {
      limit_ns = std::min(limit_ns, std::max<int64_t>(at, now_ns_) - now_ns_);
    }
  }
  for (const auto& state : channels_) {
    if (state->channel->unsent() && !state->gone) {
      limit_ns = std::min(limit_ns, kRingFullRetryNs);  // the server does not tell when the ring has room again
    }
  }
  return limit_ns;
}

bool Executor::NewsWait(bool requests) const {
  return (requests && ArrivalsWait()) || (forwarder_ != nullptr && forwarder_->HasNews()) ||
         std::any_of(channels_.begin(), channels_.end(), [](const auto& state) {
           return state->held != nullptr && (state->gone || state->channel->HasReleases());
         });
}

bool Executor::ArrivalsWait() const {
  return std::any_of(channels_.begin(), channels_.end(),
                     [this](const auto& state) { return MayAccept(*state) && state->channel->HasRequests(); });
}

void Executor::Arm(bool requests) {
  for (const auto& state : channels_) {
    state->channel->Arm(requests && MayAccept(*state), state->held != nullptr);
  }
  if (forwarder_ != nullptr) {
    forwarder_->Arm();
  }
  armed_ = true;
}

void Executor::DisarmAll() {
  for (const auto& state : channels_) {
    state->channel->Disarm();
  }
  if (forwarder_ != nullptr) {
    forwarder_->Disarm();
  }
  armed_ = false;
}

}  // namespace msserving
