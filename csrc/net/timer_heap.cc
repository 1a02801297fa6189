#include "net/timer_heap.h"

#include <utility>

namespace msserving {

uint64_t TimerHeap::Add(int64_t at_ns, std::function<void()> function) {
  uint32_t index;
  if (free_slots_.empty()) {
    index = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    index = free_slots_.back();
    free_slots_.pop_back();
  }
  Slot& slot = slots_[index];
  slot.function = std::move(function);
  heap_.push_back({at_ns, next_sequence_++, index});
  slot.place = static_cast<uint32_t>(heap_.size() - 1);
  const uint64_t id = (uint64_t{slot.generation} << 32) | index;
  SiftUp(heap_.size() - 1);
  return id;
}

void TimerHeap::Cancel(uint64_t id) {
  const auto index = static_cast<uint32_t>(id);
  const auto generation = static_cast<uint32_t>(id >> 32);
  if (index >= slots_.size() || slots_[index].generation != generation || slots_[index].place == kFree) {
    return;
  }
  RemoveAt(slots_[index].place);
}

std::function<void()> TimerHeap::PopDue(int64_t now_ns) {
  if (heap_.empty() || heap_.front().at_ns > now_ns || heap_.front().sequence >= round_) {
    return nullptr;
  }
  return RemoveAt(0);
}

void TimerHeap::Put(size_t place, const Entry& entry) {
  heap_[place] = entry;
  slots_[entry.slot].place = static_cast<uint32_t>(place);
}

void TimerHeap::SiftUp(size_t place) {
  const Entry entry = heap_[place];
  while (place > 0) {
    const size_t parent = (place - 1) / 2;
    if (!entry.Before(heap_[parent])) {
      break;
    }
    Put(place, heap_[parent]);
    place = parent;
  }
  Put(place, entry);
}

void TimerHeap::SiftDown(size_t place) {
  const Entry entry = heap_[place];
  for (;;) {
    size_t child = 2 * place + 1;
    if (child >= heap_.size()) {
      break;
    }
    if (child + 1 < heap_.size() && heap_[child + 1].Before(heap_[child])) {
      ++child;
    }
    if (!heap_[child].Before(entry)) {
      break;
    }
    Put(place, heap_[child]);
    place = child;
  }
  Put(place, entry);
}

std::function<void()> TimerHeap::RemoveAt(size_t place) {
  Slot& slot = slots_[heap_[place].slot];
  std::function<void()> function = std::move(slot.function);
  slot.function = nullptr;
  slot.place = kFree;
  ++slot.generation;
  free_slots_.push_back(heap_[place].slot);
  const Entry last = heap_.back();
  heap_.pop_back();
  if (place < heap_.size()) {
    Put(place, last);
    SiftUp(place);
    SiftDown(slots_[last.slot].place);
  }
  return function;
}

}  // namespace msserving
