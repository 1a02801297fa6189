// One limit on memory that many threads take from: what requests and replies in flight hold together, and what one
// connection may hold of it.
#pragma once

#include <algorithm>
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
  uint64_t left() const { return limit() - std::min(limit(), used()); }

  // What a client is told whose bytes were refused.
  std::string Refusal(uint64_t bytes) const {
    return "bytes in flight exceed the limit " + std::to_string(limit()) + ": " + std::to_string(used()) +
           " are in use and " + std::to_string(bytes) + " more are needed; try again later";
  }

 private:
  std::atomic<uint64_t> used_{0};
  std::atomic<uint64_t> limit_;
};

// What one connection holds of a budget: not more than `fraction` of its limit, or one message if that is larger. So a
// peer that never reads its replies takes a part of the memory, not all of it. One thread; the budget must outlive it.
class ByteShare {
 public:
  explicit ByteShare(ByteBudget* budget, double fraction = 1) : budget_(budget), fraction_(fraction) {}
  ByteShare(const ByteShare&) = delete;

  // `own` is what the same message has taken before. False, with nothing taken: one of the two limits would be passed.
  bool Take(uint64_t bytes, uint64_t own) {
    if ((held_ > own && held_ + bytes > limit()) || !budget_->Take(bytes)) {
      return false;
    }
    held_ += bytes;
    return true;
  }
  void TakeAnyway(uint64_t bytes) {
    budget_->TakeAnyway(bytes);
    held_ += bytes;
  }
  void Give(uint64_t bytes) {
    budget_->Give(bytes);
    held_ -= bytes;
  }

  uint64_t held() const { return held_; }
  uint64_t limit() const { return static_cast<uint64_t>(static_cast<double>(budget_->limit()) * fraction_); }
  // What a message that has `own` already could take besides.
  uint64_t left(uint64_t own) const {
    return held_ > own ? std::min(budget_->left(), limit() - std::min(limit(), held_)) : budget_->left();
  }

  // What a client is told whose bytes were refused.
  std::string Refusal(uint64_t bytes, uint64_t own) const {
    if (held_ <= own || held_ + bytes <= limit() || fraction_ >= 1) {
      return budget_->Refusal(bytes);
    }
    return "bytes in flight of this connection exceed its share " + std::to_string(limit()) + " of " +
           std::to_string(budget_->limit()) + ": " + std::to_string(held_) + " are in use and " +
           std::to_string(bytes) + " more are needed; read the replies, and try again later";
  }

 private:
  ByteBudget* budget_;
  double fraction_;
  uint64_t held_ = 0;
};

// What one owner has taken of a share; gives it back at its end, on the share's thread. The share must outlive it.
class ByteCharge {
 public:
  ByteCharge() = default;
  ByteCharge(ByteCharge&& other) noexcept
      : share_(std::exchange(other.share_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  ByteCharge& operator=(ByteCharge&& other) noexcept {
    if (this != &other) {
      Reset();
      share_ = std::exchange(other.share_, nullptr);
      bytes_ = std::exchange(other.bytes_, 0);
    }
    return *this;
  }
  ~ByteCharge() { Reset(); }

  // Always of the same share until Reset().
  bool Take(ByteShare* share, uint64_t bytes) {
    if (!share->Take(bytes, bytes_)) {
      return false;
    }
    share_ = share;
    bytes_ += bytes;
    return true;
  }
  void TakeAnyway(ByteShare* share, uint64_t bytes) {
    share->TakeAnyway(bytes);
    share_ = share;
    bytes_ += bytes;
  }
  void Reset() {
    if (bytes_ != 0) {
      share_->Give(bytes_);
      bytes_ = 0;
    }
  }
  uint64_t bytes() const { return bytes_; }

 private:
  ByteShare* share_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace msserving
