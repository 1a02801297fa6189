// An extra worker's model stages: rows go to device workers and come back. Without the lock, unless said otherwise.
#include <algorithm>
#include <utility>

#include "worker/executor.h"

namespace msserving {
namespace {

// A group of many rows is cut into blocks of about this much, so that the device can begin with the first.
constexpr uint64_t kGroupBytes = uint64_t{16} << 20;

// What one run may take for this row: as its own method says, or the method whose function calls the model.
int64_t TimeoutOf(const Instance& row) {
  const NestedCall* call = row.request->call;
  int64_t shortest_ns = row.timeout_ns();
  if (call != nullptr && call->frame != nullptr) {
    for (const Instance* caller : call->frame->instances()) {
      const int64_t limit_ns = caller->timeout_ns();
      shortest_ns = shortest_ns == 0 || (limit_ns > 0 && limit_ns < shortest_ns) ? limit_ns : shortest_ns;
    }
  }
  return shortest_ns;
}

void NoDevice(Instance* row) {
  row->Fail(ErrorKind::kServableUnavailable, "servable is not available: no device worker is ready to run the model");
}

}  // namespace

// hand.batch goes out, in as few blocks as possible; what fails is in hand.finished.
void Executor::Forward(Hand& hand, StageQueue& queue) {
  std::span<Instance* const> rows(hand.batch);
  while (!rows.empty()) {
    const size_t done = ForwardSome(hand, queue, rows);
    if (done == 0) {
      break;
    }
    rows = rows.subspan(done);
  }
  RingDevices(hand);
}

// How many of the first rows are out of this thread's hands; 0: all of them wait for room.
size_t Executor::ForwardSome(Hand& hand, StageQueue& queue, std::span<Instance* const> rows) {
  const size_t inputs = queue.graph->inputs();
  const StagePlan& stage = rows[0]->request->plan->stages[rows[0]->stage];
  std::unique_lock<std::mutex> lock(mutex_);
  if (!forwarder_->AnyDevice()) {
    std::for_each(rows.begin(), rows.end(), NoDevice);
    hand.finished.insert(hand.finished.end(), rows.begin(), rows.end());
    return rows.size();
  }
  size_t count = forwarder_->Share(rows.size(), queue.graph->max_batch());
  lock.unlock();
  hand.views.clear();
  int64_t deadline_ns = INT64_MIN;  // the latest: nobody needs a result later
  int64_t timeout_ns = 0;           // the shortest
  for (const Instance* row : rows.first(count)) {
    for (const uint16_t value : row->request->plan->stages[row->stage].inputs) {
      hand.views.push_back(row->values[value]);
    }
    deadline_ns = std::max(deadline_ns, row->deadline_ns);
    const int64_t limit_ns = TimeoutOf(*row);
    timeout_ns = timeout_ns == 0 || (limit_ns > 0 && limit_ns < timeout_ns) ? limit_ns : timeout_ns;
  }
  ForwardedGroup* group = nullptr;
  while (group == nullptr) {
    const uint64_t bytes = RequestBlockBytes(std::span(hand.views).first(count * inputs));
    if (count > 1 && (bytes == 0 || bytes > kGroupBytes)) {
      count /= 2;
      continue;
    }
    lock.lock();
    group = forwarder_->Reserve(bytes);
    if (group == nullptr && count == 1 && forwarder_->Fits()) {
      Stick(queue, rows);
      return 0;
    }
    lock.unlock();
    if (group == nullptr && count == 1) {
      rows[0]->Fail(ErrorKind::kInternal, stage.failed + "the model's inputs need " + std::to_string(bytes) +
                                              " bytes, the memory shared with the device workers has " +
                                              std::to_string(forwarder_->memory_bytes()));
      hand.finished.push_back(rows[0]);
      return 1;
    }
    count -= group == nullptr ? count / 2 : 0;
  }
  const auto sent = rows.first(count);
  WriteRequestBlock(forwarder_->memory(), group->offset, group->name(), deadline_ns,
                    ForwardedMethod(stage.target, stage.subgraph), static_cast<uint32_t>(count),
                    static_cast<uint32_t>(inputs), std::span(hand.views).first(count * inputs));
  auto* record = reinterpret_cast<RequestRecord*>(forwarder_->memory() + group->offset);
  record->timeout_ns = timeout_ns;
  if (count == 1 && rows[0]->alone) {
    record->mark_of(0)->order = static_cast<uint8_t>(InstanceOrder::kRunAlone);
  }
  lock.lock();
  if (forwarder_->Send(group, sent, static_cast<uint32_t>(queue.graph->outputs())) == nullptr) {
    if (forwarder_->AnyDevice()) {
      Stick(queue, rows);
      return 0;
    }
    std::for_each(sent.begin(), sent.end(), NoDevice);
    hand.finished.insert(hand.finished.end(), sent.begin(), sent.end());
    return count;
  }
  for (Instance* row : sent) {
    row->queued = true;
  }
  ++stats_.forwarded_groups;
  stats_.forwarded_rows += count;
  forwarder_->DoorbellsDue(&hand.devices);
  return count;
}

// Under the lock. Some block is out, whose end brings room: until then nothing else is sent.
void Executor::Stick(StageQueue& queue, std::span<Instance* const> rows) {
  (void)forwarder_->TakeRoom();
  stuck_queue_ = &queue;
  stuck_.assign(rows.begin(), rows.end());
  for (Instance* row : rows) {
    row->queued = true;
  }
}

// Under the lock. Null: there is no more room than before.
Executor::StageQueue* Executor::TakeStuck(Hand& hand) {
  if (!forwarder_->TakeRoom()) {
    return nullptr;
  }
  hand.batch.swap(stuck_);
  stuck_.clear();
  for (Instance* row : hand.batch) {
    row->queued = false;
  }
  return std::exchange(stuck_queue_, nullptr);
}

// Leads the rows that have come back on to their next stage; their values lie in the device worker's memory until
// EndNews().
void Executor::ReadNews(Hand& hand) {
  for (const ForwardedAnswer& answer : hand.news.answers) {
    const uint8_t* memory = answer.link->reply_memory();
    const InstanceRecord* outcomes = answer.record->instances();
    const TensorRecord* tensors = answer.record->tensors();
    for (uint32_t i = 0; i < answer.count; ++i) {
      Instance* row = hand.news.rows[answer.begin + i];
      if (row == nullptr) {
        continue;
      }
      const StagePlan& stage = row->request->plan->stages[row->stage];
      if (outcomes[i].error != 0) {
        const std::string_view text(reinterpret_cast<const char*>(memory) + outcomes[i].message_offset,
                                    outcomes[i].message_bytes);
        const auto kind = static_cast<ErrorKind>(outcomes[i].error);
        const bool of_stage = kind == ErrorKind::kStageFailed;
        row->Fail(of_stage ? stage.failure : kind, of_stage ? stage.failed + std::string(text) : std::string(text));
        hand.finished.push_back(row);
        continue;
      }
      for (uint16_t k = 0; k < stage.outputs; ++k) {
        row->values[stage.first_output + k] = ViewOf(memory, tensors[i * stage.outputs + k]);
      }
      ++row->stage;
      Advance(hand, row, &stage);
    }
  }
  hand.finished.insert(hand.finished.end(), hand.news.lost.begin(), hand.news.lost.end());
}

// Under the lock: nothing points into the answers any more.
void Executor::EndNews(Hand& hand) {
  if (hand.news.empty()) {
    return;
  }
  forwarder_->Release(hand.news);
  forwarder_->DoorbellsDue(&hand.devices);
  hand.news.Clear();
}

// Now and then, on Run()'s own thread.
void Executor::GiveBackIdleRows() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (forwarder_ == nullptr) {
    return;
  }
  const int64_t now_ns = clock_.NowNs();
  if (std::exchange(groups_seen_, stats_.forwarded_groups) != stats_.forwarded_groups) {
    groups_seen_ns_ = now_ns;
  } else if (now_ns - groups_seen_ns_ >= options_.idle_ns) {
    forwarder_->DiscardIdleMemory();
  }
}

void Executor::RingDevices(Hand& hand) {
  for (const auto& device : hand.devices) {
    device->RingDoorbell();
  }
  hand.devices.clear();
}

// Under the lock, which it gives up for that.
void Executor::RingDevices(Hand& hand, std::unique_lock<std::mutex>& lock) {
  if (!hand.devices.empty()) {
    lock.unlock();
    RingDevices(hand);
    lock.lock();
  }
}

}  // namespace msserving
