// Choosing what runs next: of the lanes that are free, the queue whose oldest instance has waited longest. Under the
// lock.
#include <algorithm>
#include <bit>

#include "worker/executor.h"

namespace msserving {

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
    const std::span<BatchItem*> room =
        std::span(hand.room).first(std::min<size_t>(hand.room.size(), queue->at_once.now()));
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

}  // namespace msserving
