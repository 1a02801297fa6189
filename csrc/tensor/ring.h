// A single-producer single-consumer ring of small entries in shared memory, with a flag that says whether the
// consumer sleeps and must be woken through a doorbell.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace msserving {

struct RingEntry {
  uint64_t words[4];
};

// What both sides map. The creating side zeroes it (a fresh memfd is zero) and sets capacity on both ends alike.
struct RingHeader {
  alignas(64) std::atomic<uint64_t> tail;      // entries ever pushed; the producer's
  alignas(64) std::atomic<uint64_t> head;      // entries ever popped; the consumer's
  alignas(64) std::atomic<uint32_t> sleeping;  // 1: the consumer is going to block
};
static_assert(std::atomic<uint64_t>::is_always_lock_free);

constexpr size_t RingBytes(uint32_t capacity) { return sizeof(RingHeader) + size_t{capacity} * sizeof(RingEntry); }

// One process, one thread. The other side is not trusted: a head that makes no sense reads as a full ring.
class RingProducer {
 public:
  RingProducer() = default;
  // `capacity` is a power of two and the same on both sides.
  RingProducer(void* memory, uint32_t capacity);

  // False: full.
  bool Push(const RingEntry& entry);
  // After any number of Push(): true if the consumer sleeps and its doorbell must be rung now (told once).
  bool ConsumerMustWake();

 private:
  RingHeader* header_ = nullptr;
  RingEntry* entries_ = nullptr;
  uint64_t mask_ = 0;
  uint64_t tail_ = 0;
  uint64_t cached_head_ = 0;
};

// One process, one thread at a time. A tail that makes no sense reads as an empty ring and sets broken().
class RingConsumer {
 public:
  RingConsumer() = default;
  RingConsumer(void* memory, uint32_t capacity);

  // False: empty.
  bool Pop(RingEntry* entry);
  bool Empty() const;
  // Before blocking: call ArmDoorbell() on every ring, then block only if all are Empty(). After: Disarm().
  void ArmDoorbell();
  void DisarmDoorbell();
  bool broken() const { return broken_; }

 private:
  RingHeader* header_ = nullptr;
  RingEntry* entries_ = nullptr;
  uint64_t mask_ = 0;
  uint64_t head_ = 0;
  uint64_t cached_tail_ = 0;
  bool broken_ = false;
};

}  // namespace msserving
