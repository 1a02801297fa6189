#include "net/event_loop.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

#include "base/spin_gate.h"
#include "net/timer_heap.h"

namespace msserving {
namespace {

constexpr size_t kScratchBytes = 128 << 10;
constexpr int kEventsPerWait = 256;

[[noreturn]] void ThrowErrno(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

}  // namespace

struct EventLoop::State {
  UniqueFd epoll;
  UniqueFd wakeup;                 // an eventfd; epoll knows it by a null handler
  UniqueFd timer;                  // a timerfd; epoll knows it by the address of this member
  int64_t armed_ns = kNoDeadline;  // what it is set to
  epoll_event events[kEventsPerWait];
  int event_count = 0;
  int event_next = 0;

  TimerHeap timers;
  std::vector<LoopHook*> hooks;
  std::vector<Flushable*> flushables;

  std::mutex mutex;  // guards posted; nothing is called under it
  std::vector<std::function<void()>> posted;
  std::atomic<bool> has_posted{false};
  std::atomic<bool> sleeping{false};
  std::atomic<bool> stop{false};
  std::vector<std::function<void()>> running;

  bool spins = false;
  bool asked = false;  // epoll, since the last wake-up before this one
  SpinGate gates[2];   // of waits for clients; of waits for what the hooks expect

  bool Look(int64_t budget_ns, int64_t since_ns, const Clock& clock);
  uint64_t Expected() const;
  void Block(bool may_block);
  void Wait(bool may_block);
  bool ArmTimer(int64_t now_ns, const Clock& clock);
  void RunPosted();
  void RunTimers(int64_t now_ns);
  void RunHooks();
  void RunFlushes();
  bool ArmHooks();
  void WakeUp();
};

void EventLoop::State::Wait(bool may_block) {
  asked = true;
  event_next = 0;
  event_count = epoll_wait(epoll.get(), events, kEventsPerWait, may_block ? -1 : 0);
  if (event_count < 0) {
    if (errno != EINTR) {
      ThrowErrno("epoll_wait");
    }
    event_count = 0;
  }
}

void EventLoop::State::Block(bool may_block) {
  // A poster sees `sleeping` and rings, or is seen here: both sides write first and read second.
  sleeping.store(true, std::memory_order_seq_cst);
  may_block = ArmHooks() && may_block;
  if (has_posted.load(std::memory_order_seq_cst) || stop.load(std::memory_order_seq_cst)) {
    may_block = false;
  }
  Wait(may_block);
  sleeping.store(false, std::memory_order_relaxed);
  for (size_t i = 0; i < hooks.size(); ++i) {
    if (hooks[i] != nullptr) {
      hooks[i]->OnAwake();
    }
  }
}

uint64_t EventLoop::State::Expected() const {
  uint64_t expected = 0;
  for (const LoopHook* hook : hooks) {
    expected += hook != nullptr ? hook->Expected() : 0;
  }
  return expected;
}

// True: there is something to do, and what epoll had is in `events`. Work that is there already is done without asking
// epoll: an answer of a worker does not wait for a system call that finds nothing. But never twice in a row, so that
// sockets wait for one wake-up at most, however quickly other work comes.
bool EventLoop::State::Look(int64_t budget_ns, int64_t since_ns, const Clock& clock) {
  event_next = event_count = 0;
  for (bool may_skip = std::exchange(asked, false);; may_skip = true) {
    bool found = has_posted.load(std::memory_order_acquire) || stop.load(std::memory_order_acquire);
    for (size_t i = 0; i < hooks.size(); ++i) {
      found |= hooks[i] != nullptr && hooks[i]->OnLook();
    }
    if (found && may_skip) {
      return true;
    }
    Wait(false);
    if (found || event_count > 0) {
      return true;
    }
    if (clock.NowNs() - since_ns >= budget_ns) {
      return false;
    }
    sched_yield();  // a worker on the same processor has to run for its answer to come
  }
}

// The timer descriptor is set only when the next timer is earlier than what it is set to: most timers are cancelled
// or replaced by later ones, and a wake-up too many costs less than a setting for each. `now_ns` is the wake-up's.
// False: a timer is due already.
bool EventLoop::State::ArmTimer(int64_t now_ns, const Clock& clock) {
  const int64_t next_ns = timers.next_ns();
  if (next_ns <= now_ns) {
    return false;
  }
  if (next_ns < armed_ns) {
    const int64_t wait_ns = std::max<int64_t>(1, next_ns - clock.NowNs());
    const itimerspec setting{{0, 0}, {wait_ns / kNanosPerSecond, wait_ns % kNanosPerSecond}};
    if (timerfd_settime(timer.get(), 0, &setting, nullptr) != 0) {
      ThrowErrno("timerfd_settime");
    }
    armed_ns = next_ns;
  }
  return true;
}

void EventLoop::State::WakeUp() {
  const uint64_t one = 1;
  // It can only fail when the counter is full, and then the loop wakes up anyway.
  [[maybe_unused]] const ssize_t written = write(wakeup.get(), &one, sizeof(one));
}

void EventLoop::State::RunPosted() {
  if (!has_posted.load(std::memory_order_acquire)) {
    return;
  }
  {
    std::lock_guard lock(mutex);
    running.swap(posted);
    has_posted.store(false, std::memory_order_relaxed);
  }
  for (auto& function : running) {
    function();
    function = nullptr;
  }
  running.clear();
}

void EventLoop::State::RunTimers(int64_t now_ns) {
  // Timers added by these ones wait for the next wake-up, even if they are due: no timer can hold the loop.
  timers.BeginRound();
  while (auto function = timers.PopDue(now_ns)) {
    function();
  }
}

void EventLoop::State::RunHooks() {
  for (size_t i = 0; i < hooks.size(); ++i) {
    if (hooks[i] != nullptr) {
      hooks[i]->OnWake();
    }
  }
  std::erase(hooks, nullptr);
}

void EventLoop::State::RunFlushes() {
  for (size_t i = 0; i < flushables.size(); ++i) {  // may grow meanwhile
    if (Flushable* flushable = flushables[i]) {
      flushables[i] = nullptr;
      flushable->scheduled_ = false;
      flushable->Flush();
    }
  }
  flushables.clear();
}

// True if nothing keeps the loop from blocking.
bool EventLoop::State::ArmHooks() {
  bool may_sleep = true;
  for (size_t i = 0; i < hooks.size(); ++i) {
    if (hooks[i] != nullptr && !hooks[i]->OnSleep()) {
      may_sleep = false;
    }
  }
  return may_sleep;
}

EventLoop::EventLoop(const Clock& clock)
    : clock_(clock), now_ns_(clock.NowNs()), scratch_(kScratchBytes), state_(std::make_unique<State>()) {
  state_->epoll.Reset(epoll_create1(EPOLL_CLOEXEC));
  if (!state_->epoll) {
    ThrowErrno("epoll_create1");
  }
  state_->wakeup.Reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!state_->wakeup) {
    ThrowErrno("eventfd");
  }
  Add(state_->wakeup.get(), EPOLLIN, nullptr);
  state_->timer.Reset(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!state_->timer) {
    ThrowErrno("timerfd_create");
  }
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = &state_->timer;
  if (epoll_ctl(state_->epoll.get(), EPOLL_CTL_ADD, state_->timer.get(), &event) != 0) {
    ThrowErrno("epoll_ctl(add)");
  }
}

EventLoop::~EventLoop() = default;

void EventLoop::Add(int fd, uint32_t events, IoHandler* handler) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = handler;
  if (epoll_ctl(state_->epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    ThrowErrno("epoll_ctl(add)");
  }
}

void EventLoop::Modify(int fd, uint32_t events, IoHandler* handler) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = handler;
  if (epoll_ctl(state_->epoll.get(), EPOLL_CTL_MOD, fd, &event) != 0) {
    ThrowErrno("epoll_ctl(modify)");
  }
}

void EventLoop::Remove(int fd, IoHandler* handler) {
  epoll_ctl(state_->epoll.get(), EPOLL_CTL_DEL, fd, nullptr);
  for (int i = state_->event_next; i < state_->event_count; ++i) {
    if (state_->events[i].data.ptr == handler) {
      state_->events[i].events = 0;
    }
  }
}

void EventLoop::Run() {
  State& state = *state_;
  for (;;) {
    const bool may_block = state.ArmTimer(now_ns_, clock_);
    const uint64_t expected = state.spins ? state.Expected() : 0;
    if (state.spins && expected <= kFewExpected) {
      SpinGate& gate = state.gates[expected > 0 ? 1 : 0];
      const int64_t since_ns = clock_.NowNs();
      const int64_t budget_ns = may_block ? gate.budget_ns() : 0;
      const bool found = budget_ns > 0 && state.Look(budget_ns, since_ns, clock_);
      if (!found) {
        state.Block(may_block);
      }
      now_ns_ = clock_.NowNs();
      if (may_block) {
        gate.OnWait(now_ns_ - since_ns, !found);
      }
    } else {
      state.Block(may_block);
      now_ns_ = clock_.NowNs();
    }

    while (state.event_next < state.event_count) {
      const epoll_event event = state.events[state.event_next++];
      if (event.events == 0) {
        continue;
      }
      if (event.data.ptr == nullptr) {
        uint64_t count;
        [[maybe_unused]] const ssize_t got = read(state.wakeup.get(), &count, sizeof(count));
        continue;
      }
      if (event.data.ptr == &state.timer) {
        uint64_t count;
        [[maybe_unused]] const ssize_t got = read(state.timer.get(), &count, sizeof(count));
        state.armed_ns = kNoDeadline;
        continue;
      }
      static_cast<IoHandler*>(event.data.ptr)->OnIo(event.events);
    }
    state.RunPosted();
    state.RunTimers(now_ns_);
    state.RunHooks();
    state.RunFlushes();
    if (state.stop.load(std::memory_order_acquire) && !state.has_posted.load(std::memory_order_acquire)) {
      state.stop.store(false, std::memory_order_relaxed);  // so that the loop can run again
      return;
    }
  }
}

void EventLoop::Stop() {
  state_->stop.store(true, std::memory_order_seq_cst);
  state_->WakeUp();
}

void EventLoop::Post(std::function<void()> function) {
  {
    std::lock_guard lock(state_->mutex);
    state_->posted.push_back(std::move(function));
    state_->has_posted.store(true, std::memory_order_seq_cst);
  }
  // One ring is enough for all who post while the loop sleeps.
  if (state_->sleeping.load(std::memory_order_seq_cst) && state_->sleeping.exchange(false)) {
    state_->WakeUp();
  }
}

TimerId EventLoop::AddTimer(int64_t at_ns, std::function<void()> function) {
  // Not earlier than now: a timer added by a timer must come behind those that are due already.
  return state_->timers.Add(std::max(at_ns, now_ns_), std::move(function));
}

void EventLoop::CancelTimer(TimerId id) { state_->timers.Cancel(id); }

void EventLoop::SetSpin(int64_t limit_ns) {
  state_->spins = limit_ns > 0;
  for (SpinGate& gate : state_->gates) {
    gate = SpinGate(limit_ns);
  }
}

void EventLoop::AddHook(LoopHook* hook) { state_->hooks.push_back(hook); }

void EventLoop::RemoveHook(LoopHook* hook) {
  std::replace(state_->hooks.begin(), state_->hooks.end(), hook, static_cast<LoopHook*>(nullptr));
}

void EventLoop::ScheduleFlush(Flushable* flushable) {
  if (!flushable->scheduled_) {
    flushable->scheduled_ = true;
    state_->flushables.push_back(flushable);
  }
}

void EventLoop::UnscheduleFlush(Flushable* flushable) {
  if (flushable->scheduled_) {
    flushable->scheduled_ = false;
    std::replace(state_->flushables.begin(), state_->flushables.end(), flushable, static_cast<Flushable*>(nullptr));
  }
}

}  // namespace msserving
