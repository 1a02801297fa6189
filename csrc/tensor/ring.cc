#include "tensor/ring.h"

namespace msserving {

RingProducer::RingProducer(void* memory, uint32_t capacity)
    : header_(static_cast<RingHeader*>(memory)),
      entries_(reinterpret_cast<RingEntry*>(header_ + 1)),
      mask_(capacity - 1),
      tail_(header_->tail.load(std::memory_order_relaxed)),
      cached_head_(header_->head.load(std::memory_order_acquire)) {}

bool RingProducer::Push(const RingEntry& entry) {
  if (tail_ - cached_head_ > mask_) {
    cached_head_ = header_->head.load(std::memory_order_acquire);
    if (tail_ - cached_head_ > mask_) {
      return false;
    }
  }
  entries_[tail_ & mask_] = entry;
  ++tail_;
  header_->tail.store(tail_, std::memory_order_release);
  return true;
}

bool RingProducer::ConsumerMustWake() {
  // Pairs with the fence in ArmDoorbell(): either we see the consumer going to sleep, or it sees our entry. A
  // read-modify-write rather than a fence, which ThreadSanitizer does not understand.
  if (header_->sleeping.fetch_add(0, std::memory_order_seq_cst) == 0) {
    return false;
  }
  return header_->sleeping.exchange(0, std::memory_order_seq_cst) != 0;
}

RingConsumer::RingConsumer(void* memory, uint32_t capacity)
    : header_(static_cast<RingHeader*>(memory)),
      entries_(reinterpret_cast<RingEntry*>(header_ + 1)),
      mask_(capacity - 1),
      head_(header_->head.load(std::memory_order_relaxed)),
      cached_tail_(head_) {}

bool RingConsumer::Pop(RingEntry* entry) {
  if (head_ == cached_tail_) {
    const uint64_t tail = header_->tail.load(std::memory_order_acquire);
    if (tail - head_ > mask_ + 1) {
      broken_ = true;
      return false;
    }
    cached_tail_ = tail;
    if (head_ == cached_tail_) {
      return false;
    }
  }
  *entry = entries_[head_ & mask_];
  ++head_;
  header_->head.store(head_, std::memory_order_release);
  return true;
}

bool RingConsumer::Empty() const { return head_ == header_->tail.load(std::memory_order_seq_cst) || broken_; }

void RingConsumer::ArmDoorbell() { header_->sleeping.exchange(1, std::memory_order_seq_cst); }

void RingConsumer::DisarmDoorbell() { header_->sleeping.store(0, std::memory_order_relaxed); }

}  // namespace msserving
