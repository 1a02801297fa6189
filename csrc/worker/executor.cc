#include "worker/executor.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <utility>

namespace msserving {
namespace {

constexpr int kSignalCheckMs = 100;

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

Status Executor::Run(UniqueFd doorbell, const RunHooks& hooks, RunEnd* end) {
  bool lanes[kLanes] = {};
  for (const auto& queue : queues_) {
    lanes[queue->lane] = true;
    room_ = std::max<size_t>(room_, std::max(queue->queue.max_batch(), queue->at_once.most()));
  }
  if (lanes[kPython] && python_ == nullptr) {
    return Status(ErrorKind::kInternal, "a method has Python stages, but nobody to run them was set");
  }
  if (!done_) {
    return Status(ErrorKind::kInternal, "cannot make the event of the worker's end");
  }
  if (Status status = sleepers_.Open(std::move(doorbell)); !status.ok()) {
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
  sleepers_.WakeOne();
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
  sleepers_.Ring();
}

void Executor::Work(Hand& hand) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!ended_) {
    WorkOnce(hand, lock);
  }
  if (sleepers_.any()) {
    sleepers_.Ring();  // pass it on
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
  queue->at_once.Adapt(instances, end_ns - begin_ns);
  if (queue->graph != nullptr) {  // Python stages count themselves
    queue->instances += instances;
    queue->run_ns += static_cast<uint64_t>(end_ns - begin_ns);
    Line& line = queue->lines[hand.token];
    line.counters = line.graph->counters();
  }
  GiveToken(hand, queue);
  TellCallers(hand, lock);
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
