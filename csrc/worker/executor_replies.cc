// Answering finished instances, and holding back what finds no room. Without the lock, unless said otherwise.
#include <algorithm>

#include "worker/executor.h"
#include "worker/reply_block.h"

namespace msserving {
namespace {

// A reply of many instances is cut into blocks of about this much, so that it finds room in a used slab.
constexpr uint64_t kSegmentBytes = 1 << 20;

}  // namespace

void Executor::Publish(Hand& hand) {
  FinishNested(hand);
  if (hand.finished.empty()) {
    hand.kept_bytes = 0;
    return;
  }
  CutSegments(hand);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    AllocateSegments(hand);
  }
  for (const Segment& segment : hand.segments) {
    const std::span<Instance* const> instances(hand.finished.data() + segment.begin, segment.count);
    if (segment.offset != Channel::kNone) {
      WriteReplyBlock(segment.channel->channel->reply_memory(), segment.offset, instances);
      continue;
    }
    for (Instance* instance : instances) {
      if (!CopyOut(instance)) {
        instance->Fail(ErrorKind::kInternal, "no memory to hold a result back");
      }
    }
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    SendSegments(hand);
  }
  for (const auto& channel : hand.doorbells) {
    channel->RingDoorbell();
  }
  hand.doorbells.clear();
  hand.finished.clear();
  hand.kept_bytes = 0;
}

// Runs of consecutive instances of one request share a block.
void Executor::CutSegments(Hand& hand) {
  hand.segments.clear();
  uint64_t payload = 0;
  bool open = false;  // the last segment may grow
  for (uint32_t i = 0; i < hand.finished.size(); ++i) {
    const Instance& instance = *hand.finished[i];
    if (instance.reply_offset != Channel::kNone) {
      hand.segments.push_back({instance.request->channel, i, 1, instance.reply_bytes, instance.reply_offset});
      open = false;
      continue;
    }
    const uint64_t bytes = ReplyPayloadBytes(instance);
    ChannelState* channel = instance.request->channel;
    const uint64_t limit = std::min(kSegmentBytes, channel->channel->reply_bytes() / 4);
    const bool joins = open && hand.finished[i - 1]->request == instance.request &&
                       hand.finished[i - 1]->index + 1 == instance.index && payload + bytes <= limit;
    if (!joins) {
      hand.segments.push_back({channel, i, 0, 0, Channel::kNone});
      payload = 0;
    }
    open = true;
    payload += bytes;
    Segment& segment = hand.segments.back();
    ++segment.count;
    segment.bytes = ReplyBlockBytes(*instance.request->plan, segment.count, payload);
  }
}

// Under the lock.
void Executor::AllocateSegments(Hand& hand) {
  Disarm();  // this thread looks at the rings itself when it is done, so nobody need be woken by the answer's answer
  for (Segment& segment : hand.segments) {
    Channel& channel = *segment.channel->channel;
    if (segment.channel->gone) {
      continue;
    }
    // What was held back goes first; what has its block has it.
    if (segment.channel->held != nullptr || segment.offset != Channel::kNone) {
      continue;
    }
    segment.offset = channel.Allocate(segment.bytes);
    if (segment.offset != Channel::kNone || channel.slab().blocks() > 0) {
      continue;
    }
    // Even an empty slab has no room: there will never be any.
    for (uint32_t i = 0; i < segment.count; ++i) {
      hand.finished[segment.begin + i]->Fail(ErrorKind::kInternal, "the reply needs " + std::to_string(segment.bytes) +
                                                                       " bytes, the reply memory has " +
                                                                       std::to_string(channel.reply_bytes()));
    }
    const Instance& first = *hand.finished[segment.begin];
    segment.bytes = ReplyBlockBytes(*first.request->plan, segment.count, segment.count * ReplyPayloadBytes(first));
    segment.offset = channel.Allocate(segment.bytes);
  }
}

// Under the lock.
void Executor::SendSegments(Hand& hand) {
  for (const Segment& segment : hand.segments) {
    if (segment.channel->gone) {
      if (segment.offset != Channel::kNone) {
        segment.channel->channel->Free(segment.offset);
      }
      for (uint32_t i = 0; i < segment.count; ++i) {
        Retire(hand.finished[segment.begin + i]);
      }
      continue;
    }
    if (segment.offset == Channel::kNone) {
      Hold(hand, segment);
      continue;
    }
    segment.channel->channel->Send(hand.finished[segment.begin]->request->id, segment.offset, segment.bytes);
    for (uint32_t i = 0; i < segment.count; ++i) {
      Retire(hand.finished[segment.begin + i]);
    }
  }
  for (const auto& state : channels_) {
    if (state->channel->DoorbellDue()) {
      hand.doorbells.push_back(state->channel);
      ++stats_.doorbells;
    }
  }
}

// Under the lock.
void Executor::Retire(Instance* instance) {
  RequestState* request = instance->request;
  stats_.failed += instance->error != ErrorKind::kOk ? 1 : 0;
  instance->memory.Clear(memory_);
  instance->reply_offset = Channel::kNone;
  free_instances_[request->plan_index].push_back(instance);
  --live_;
  if (--request->remaining == 0) {
    --request->channel->requests;
    free_requests_.push_back(request);
  }
}

// Under the lock.
void Executor::Hold(Hand& hand, const Segment& segment) {
  ChannelState& state = *segment.channel;
  for (uint32_t i = 0; i < segment.count; ++i) {
    Instance* instance = hand.finished[segment.begin + i];
    instance->next = nullptr;
    (state.held_tail != nullptr ? state.held_tail->next : state.held) = instance;
    state.held_tail = instance;
    held_bytes_ += instance->memory.bytes();
    ++stats_.held;
  }
  // Releases that came while this was written must not be waited for.
  state.retry = state.retry || state.channel->HasReleases();
}

// Under the lock: what was held is tried again once the server has released something.
void Executor::CollectHeld(Hand& hand) {
  for (const auto& channel : channels_) {
    ChannelState& state = *channel;
    if (!std::exchange(state.retry, false)) {
      continue;
    }
    for (BatchItem* item = std::exchange(state.held, nullptr); item != nullptr;) {
      BatchItem* next = std::exchange(item->next, nullptr);
      auto* instance = static_cast<Instance*>(item);
      held_bytes_ -= instance->memory.bytes();
      hand.finished.push_back(instance);
      item = next;
    }
    state.held_tail = nullptr;
  }
}

// Moves returned values that live in a session's buffers into the instance's memory. Inputs and what the instance owns
// stay as they are until it is retired.
bool Executor::CopyOut(Instance* instance) {
  if (instance->error != ErrorKind::kOk) {
    return true;
  }
  for (const uint16_t value : instance->request->plan->returns) {
    if (value >= instance->request->plan->inputs && !instance->memory.Owns(instance->values[value].data) &&
        !KeepValue(instance, value)) {
      return false;
    }
  }
  return true;
}

}  // namespace msserving
