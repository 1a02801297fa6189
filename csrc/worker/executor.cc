#include "worker/executor.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

namespace msserving {
namespace {

constexpr int kSignalCheckMs = 100;
constexpr int64_t kRingFullRetryNs = kNanosPerMilli;

Status SystemError(const char* what) {
  return Status(ErrorKind::kInternal, std::string(what) + ": " + std::strerror(errno));
}

void WaitForEvent(int epoll, int64_t limit_ns) {
  epoll_event events[4];
  if (limit_ns == kNoDeadline) {
    epoll_wait(epoll, events, 4, -1);
    return;
  }
  const timespec timeout{limit_ns / kNanosPerSecond, limit_ns % kNanosPerSecond};
  if (epoll_pwait2(epoll, events, 4, &timeout, nullptr) < 0 && errno == ENOSYS) {
    epoll_wait(epoll, events, 4, static_cast<int>((limit_ns + kNanosPerMilli - 1) / kNanosPerMilli));
  }
}

}  // namespace

Executor::Executor(ExecutorOptions options, const Clock& clock)
    : options_(options),
      clock_(clock),
      done_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      memory_(options.keep_free_bytes),
      spin_(options.spin_ns) {}

Executor::~Executor() {
  if (!threads_.empty()) {
    EndNow(RunEnd::kInterrupted);
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }
  for (Instance& instance : instances_) {
    instance.memory.Release(memory_);
  }
}

Status Executor::OpenEvents(UniqueFd doorbell) {
  doorbell_ = std::move(doorbell);
  wake_ = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  epoll_ = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!wake_ || !done_ || !epoll_) {
    return SystemError("cannot make the worker's events");
  }
  // Edge-triggered: each ring wakes one thread, and nobody has to read the counters.
  for (const int fd : {doorbell_.get(), wake_.get()}) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
      return SystemError("cannot watch the worker's doorbell");
    }
  }
  return Status::Ok();
}

Status Executor::Run(UniqueFd doorbell, const RunHooks& hooks, RunEnd* end) {
  bool lanes[kLanes] = {};
  for (const auto& queue : queues_) {
    lanes[queue->lane] = true;
    room_ = std::max<size_t>(room_, std::max(queue->queue.max_batch(), queue->most));
  }
  if (lanes[kPython] && python_ == nullptr) {
    return Status(ErrorKind::kInternal, "a method has Python stages, but nobody to run them was set");
  }
  if (Status status = OpenEvents(std::move(doorbell)); !status.ok()) {
    return status;
  }
  const size_t count =
      std::max<size_t>(1, (lanes[kPython] ? tokens_[kPython] : 0) + (lanes[kDevice] ? tokens_[kDevice] : 0));
  {
    std::lock_guard<std::mutex> lock(mutex_);
    AddProbe();  // stats() of other threads may look at the queues already
    running_ = true;
  }
  for (size_t i = 0; i < count; ++i) {
    Hand& hand = hands_.emplace_back();
    hand.room.resize(room_);
    threads_.emplace_back([this, &hand] { Work(hand); });
    pthread_setname_np(threads_.back().native_handle(), ("worker-" + std::to_string(i)).c_str());
  }
  WaitForEnd(hooks);
  std::unique_lock<std::mutex> lock(mutex_);
  *end = end_;
  Status status = broken_;
  lock.unlock();
  if (*end == RunEnd::kStopped) {
    for (std::thread& thread : threads_) {
      thread.join();
    }
    threads_.clear();
  }
  return status;
}

void Executor::WaitForEnd(const RunHooks& hooks) {
  pollfd watched[2] = {{done_.get(), POLLIN, 0}, {hooks.control_fd, POLLIN, 0}};
  while (true) {
    watched[0].revents = watched[1].revents = 0;
    const int ready = poll(watched, 2, kSignalCheckMs);
    if (ready > 0 && watched[0].revents != 0) {
      return;
    }
    if (ready > 0 && watched[1].revents != 0) {
      const ControlEvent event = hooks.on_control();
      if (event == ControlEvent::kStop) {
        RequestStop();
      } else if (event == ControlEvent::kServerGone) {
        EndNow(RunEnd::kServerGone);
      }
    }
    GiveBackIdleRows();
    if (hooks.interrupted && hooks.interrupted()) {
      EndNow(RunEnd::kInterrupted);
    }
  }
}

void Executor::RequestStop() {
  std::lock_guard<std::mutex> lock(mutex_);
  stopping_ = true;
  for (const auto& queue : queues_) {
    queue->queue.Drain();
  }
  WakeOne();
}

void Executor::EndNow(RunEnd end) {
  std::lock_guard<std::mutex> lock(mutex_);
  End(end);
}

void Executor::End(RunEnd end) {
  if (!ended_) {
    ended_ = true;
    end_ = end;
    eventfd_write(done_.get(), 1);
    for (Caller& call : callers_) {
      call.changed.notify_all();
    }
  }
  if (wake_) {
    eventfd_write(wake_.get(), 1);
  }
}

void Executor::Work(Hand& hand) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!ended_) {
    WorkOnce(hand, lock);
  }
  if (sleeping_ > 0) {
    eventfd_write(wake_.get(), 1);  // pass it on
  }
}

void Executor::WorkOnce(Hand& hand, std::unique_lock<std::mutex>& lock) {
  Disarm();
  now_ns_ = clock_.NowNs();
  Accept(hand);
  CollectHeld(hand);
  if (forwarder_ != nullptr) {
    forwarder_->Collect(&hand.news);
    stats_.forwarded_lost += hand.news.lost.size();
    forwarder_->DoorbellsDue(&hand.devices);  // of those that took over rows
    RingDevices(hand, lock);
  }
  StageQueue* queue = TakeBatch(hand);
  if (queue == nullptr && hand.finished.empty() && hand.arrived.empty() && hand.news.empty()) {
    if (Drained()) {
      End(RunEnd::kStopped);
    }
    if (!ended_) {
      Rest(hand, lock);
    }
    return;
  }
  hand.looked = false;
  RunTaken(hand, queue, lock);
}

// What the hand has arrived, finished and taken from `queue`, which may be null.
void Executor::RunTaken(Hand& hand, StageQueue* queue, std::unique_lock<std::mutex>& lock) {
  if (queue != nullptr) {
    TakeToken(hand, queue);
  }
  if (!hand.finished.empty() || !hand.arrived.empty() || !hand.news.empty()) {
    lock.unlock();
    for (Instance* instance : hand.arrived) {
      Advance(hand, instance, nullptr);
    }
    hand.arrived.clear();
    ReadNews(hand);
    Publish(hand);
    lock.lock();
    EnqueueMoved(hand);
    EndNews(hand);
    RingDevices(hand, lock);
  }
  if (queue == nullptr) {
    TellCallers(hand, lock);
    return;
  }
  InviteOthers();
  lock.unlock();
  const int64_t begin_ns = clock_.NowNs();
  const size_t instances = hand.batch.size();
  RunStage(hand, *queue);
  const int64_t end_ns = clock_.NowNs();
  lock.lock();
  now_ns_ = std::max(now_ns_, end_ns);
  EnqueueMoved(hand);
  AdaptHandOver(queue, instances, end_ns - begin_ns);
  if (queue->graph != nullptr) {  // Python stages count themselves
    queue->instances += instances;
    queue->run_ns += static_cast<uint64_t>(end_ns - begin_ns);
    Line& line = queue->lines[hand.token];
    line.counters = line.graph->counters();
  }
  GiveToken(hand, queue);
  TellCallers(hand, lock);
}

void Executor::TakeToken(Hand& hand, StageQueue* queue) {
  ++busy_[queue->lane];
  ++queue->running;
  if (queue->lane == kDevice) {
    hand.token = static_cast<uint32_t>(std::countr_one(device_tokens_));
    device_tokens_ |= uint32_t{1} << hand.token;
  }
}

void Executor::GiveToken(Hand& hand, StageQueue* queue) {
  --busy_[queue->lane];
  --queue->running;
  if (queue->lane == kDevice) {
    device_tokens_ &= ~(uint32_t{1} << hand.token);
  }
}

ModelCounters Executor::CountersOf(const StageQueue& queue) {
  ModelCounters sum;
  for (const Line& line : queue.lines) {
    sum.runs += line.counters.runs;
    sum.rows += line.counters.rows;
    sum.padded += line.counters.padded;
    sum.in_place += line.counters.in_place;
    sum.splits += line.counters.splits;
  }
  return sum;
}

void Executor::AdaptHandOver(StageQueue* queue, size_t instances, int64_t run_ns) {
  if (queue->fewest == 0 || instances == 0) {
    return;
  }
  const int64_t each_ns = std::max<int64_t>(1, run_ns / static_cast<int64_t>(instances));
  const int64_t fitting = std::min<int64_t>(queue->hand_over_ns / each_ns, queue->most);
  // Down at once, up by doubling: one quick instance among slow ones is no reason for a long run.
  const int64_t wanted = std::min<int64_t>(fitting, int64_t{queue->at_once} * 2);
  queue->at_once = std::max(queue->fewest, static_cast<uint32_t>(wanted));
}

Executor::StageQueue* Executor::OldestReady(Lane lane) {
  StageQueue* oldest = nullptr;
  for (const auto& queue : queues_) {
    if (queue->lane == lane && queue->queue.size() > 0 && MayRun(*queue) && queue->queue.Ready() &&
        (oldest == nullptr || queue->queue.oldest()->queued_ns < oldest->queue.oldest()->queued_ns)) {
      oldest = queue.get();
    }
  }
  return oldest;
}

bool Executor::MayRun(const StageQueue& queue) const {
  const bool stuck = queue.lane == kDevice && stuck_queue_ != nullptr;
  return !stuck && Free(queue.lane) && (queue.stage == nullptr || queue.running < queue.stage->concurrency);
}

Executor::StageQueue* Executor::TakeBatch(Hand& hand) {
  hand.batch.clear();
  if (held_bytes_ > options_.max_held_bytes) {
    return nullptr;
  }
  for (const Lane lane : {kDevice, kPython}) {
    if (StageQueue* queue = TakeFrom(hand, lane); queue != nullptr) {
      return queue;
    }
  }
  return nullptr;
}

Executor::StageQueue* Executor::TakeFrom(Hand& hand, Lane lane) {
  // A queue whose items had all expired gives an empty batch: look at the next.
  while (Free(lane)) {
    if (lane == kDevice && stuck_queue_ != nullptr) {
      return TakeStuck(hand);
    }
    StageQueue* queue = OldestReady(lane);
    if (queue == nullptr) {
      break;
    }
    const std::span<BatchItem*> room = std::span(hand.room).first(std::min<size_t>(hand.room.size(), queue->at_once));
    const BatchQueue::Batch batch = queue->RunsSingly() ? queue->queue.TakeSingly(room) : queue->queue.Take(room);
    Drop(hand, batch.expired, ErrorKind::kDeadlineExceeded);
    Drop(hand, batch.cancelled, ErrorKind::kCancelled);
    if (batch.count > 0) {
      for (size_t i = 0; i < batch.count; ++i) {
        hand.batch.push_back(static_cast<Instance*>(hand.room[i]));
        hand.batch.back()->queued = false;
      }
      return queue;
    }
  }
  return nullptr;
}

// Before a thread disappears into a stage: the other one takes what is left, or the doorbells wake it for what comes.
void Executor::InviteOthers() {
  if (sleeping_ == 0) {
    return;
  }
  for (const Lane lane : {kDevice, kPython}) {
    if (Free(lane) && held_bytes_ <= options_.max_held_bytes && OldestReady(lane) != nullptr) {
      WakeOne();
      return;
    }
  }
  const bool requests = LaneForArrivals();
  if (requests || forwarder_ != nullptr) {
    Arm(requests);
    if ((requests && ArrivalsWait()) || (forwarder_ != nullptr && forwarder_->HasNews())) {
      WakeOne();
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

bool Executor::NewsWait(bool requests) const {
  return (requests && ArrivalsWait()) || (forwarder_ != nullptr && forwarder_->HasNews()) ||
         std::any_of(channels_.begin(), channels_.end(), [](const auto& state) {
           return state->held != nullptr && (state->gone || state->channel->HasReleases());
         });
}

void Executor::Sleep(std::unique_lock<std::mutex>& lock) {
  const bool requests = LaneForArrivals();
  Arm(requests);
  if (NewsWait(requests)) {
    return;
  }
  const int64_t limit_ns = SleepLimitNs();
  ++sleeping_;
  lock.unlock();
  WaitForEvent(epoll_.get(), limit_ns);
  lock.lock();
  --sleeping_;
  waking_ = false;
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

bool Executor::LaneForArrivals() const {
  return starts_inline_ || (starts_[kDevice] && Free(kDevice)) || (starts_[kPython] && Free(kPython));
}

bool Executor::MayAccept(const ChannelState& state) const {
  return state.held == nullptr && !state.gone && !state.channel->unsent() && live_ < options_.max_live_instances;
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

void Executor::Disarm() {
  if (!armed_) {
    return;
  }
  for (const auto& state : channels_) {
    state->channel->Disarm();
  }
  if (forwarder_ != nullptr) {
    forwarder_->Disarm();
  }
  armed_ = false;
}

void Executor::WakeOne() {
  if (sleeping_ > 0 && !waking_) {
    waking_ = true;
    eventfd_write(wake_.get(), 1);
  }
}

bool Executor::Drained() const {
  return stopping_ && live_ == 0 && std::none_of(channels_.begin(), channels_.end(), [](const auto& state) {
           return !state->gone && (state->channel->unsent() || state->channel->HasRequests());
         });
}

ExecutorStats Executor::stats() const {
  std::lock_guard<std::mutex> lock(mutex_);
  ExecutorStats stats = stats_;
  stats.live_instances = live_;
  stats.rows_with_devices = forwarder_ != nullptr ? forwarder_->rows_out() : 0;
  for (const auto& queue : queues_) {
    if (queue->probe) {
      continue;
    }
    StageStats stage;
    stage.name = queue->name;
    stage.kind = queue->graph != nullptr ? StageKind::kModel : StageKind::kPython;
    for (size_t i = 0; i < stage.releases.size(); ++i) {
      stage.releases[i] = queue->queue.releases(static_cast<BatchRelease>(i));
    }
    stage.queued = queue->queue.size();
    stage.instances = queue->instances;
    stage.run_ns = queue->run_ns;
    stage.model = CountersOf(*queue);
    stats.stages.push_back(std::move(stage));
  }
  return stats;
}

}  // namespace msserving
