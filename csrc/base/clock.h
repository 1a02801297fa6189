// Time is a parameter: everything that waits or times out is handed a Clock.
#pragma once

#include <cstdint>

namespace msserving {

inline constexpr int64_t kNanosPerMicro = 1'000;
inline constexpr int64_t kNanosPerMilli = 1'000'000;
inline constexpr int64_t kNanosPerSecond = 1'000'000'000;
inline constexpr int64_t kNoDeadline = INT64_MAX;

// Any thread may call NowNs().
class Clock {
 public:
  virtual ~Clock() = default;
  // CLOCK_MONOTONIC, the same in every process of one machine.
  virtual int64_t NowNs() const = 0;
};

// The process-wide real clock; lives for ever.
const Clock& RealClock();

// Seconds since 1970, for what people read. Never for measuring or waiting: it may jump.
int64_t WallClockSeconds();

// For tests: stands still until told otherwise. Not thread-safe.
class FakeClock final : public Clock {
 public:
  int64_t NowNs() const override { return now_ns_; }
  void Advance(int64_t ns) { now_ns_ += ns; }

 private:
  int64_t now_ns_ = kNanosPerSecond;
};

}  // namespace msserving
