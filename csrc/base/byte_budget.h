// One limit on memory that many threads take from: what requests and replies in flight hold together.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

namespace msserving {

// Any thread; never blocks, takes no lock.
class ByteBudget {
 public:
  explicit ByteBudget(uint64_t limit) : limit_(limit) {}
  ByteBudget(const ByteBudget&) = delete;

  // False, with nothing taken: the limit would be passed.
  bool Take(uint64_t bytes) {
    if (used_.fetch_add(bytes, std::memory_order_relaxed) + bytes <= limit()) {
      return true;
    }
    Give(bytes);
    return false;
  }
  // For what can be refused no more, a reply: may pass the limit.
  void TakeAnyway(uint64_t bytes) { used_.fetch_add(bytes, std::memory_order_relaxed); }
  void Give(uint64_t bytes) { used_.fetch_sub(bytes, std::memory_order_relaxed); }

  uint64_t used() const { return used_.load(std::memory_order_relaxed); }
  uint64_t limit() const { return limit_.load(std::memory_order_relaxed); }
  void set_limit(uint64_t limit) { limit_.store(limit, std::memory_order_relaxed); }

  // What a client is told whose bytes were refused.
  std::string Refusal(uint64_t bytes) const {
    return "bytes in flight exceed the limit " + std::to_string(limit()) + ": " + std::to_string(used()) +
           " are in use and " + std::to_string(bytes) + " more are needed; try again later";
  }

 private:
  std::atomic<uint64_t> used_{0};
  std::atomic<uint64_t> limit_;
};

// What one owner has taken of a budget; gives it back at its end. The budget must outlive it.
class ByteCharge {
 public:
  ByteCharge() = default;
  ByteCharge(ByteCharge&& other) noexcept
      : budget_(std::exchange(other.budget_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  ByteCharge& operator=(ByteCharge&& other) noexcept {
    if (this != &other) {
      Reset();
      budget_ = std::exchange(other.budget_, nullptr);
      bytes_ = std::exchange(other.bytes_, 0);
    }
    return *this;
  }
  ~ByteCharge() { Reset(); }

  // Always of the same budget until Reset().
  bool Take(ByteBudget* budget, uint64_t bytes) {
    if (!budget->Take(bytes)) {
      return false;
    }
    budget_ = budget;
    bytes_ += bytes;
    return true;
  }
  void TakeAnyway(ByteBudget* budget, uint64_t bytes) {
    budget->TakeAnyway(bytes);
    budget_ = budget;
    bytes_ += bytes;
  }
  void Reset() {
    if (bytes_ != 0) {
      budget_->Give(bytes_);
      bytes_ = 0;
    }
  }
  uint64_t bytes() const { return bytes_; }

 private:
  ByteBudget* budget_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace msserving
