#include "base/spin_gate.h"

#include <gtest/gtest.h>

namespace msserving {
namespace {

constexpr int64_t kLimitNs = 50 * kNanosPerMicro;
constexpr int64_t kShortNs = 20 * kNanosPerMicro;
constexpr int64_t kLongNs = kNanosPerMilli;

// A thread whose next work always comes `gap_ns` after it ran out: it looks as long as the gate says, then blocks.
struct Waiter {
  void Wait(int64_t gap_ns) {
    const int64_t begin_ns = clock.NowNs();
    const int64_t budget_ns = gate.budget_ns();
    if (gap_ns <= budget_ns) {
      clock.Advance(gap_ns);
      looked_ns += gap_ns;
      ++found;
      gate.OnWait(clock.NowNs() - begin_ns, false);
      return;
    }
    clock.Advance(gap_ns + SpinGate::kWakeUpNs / 2);
    looked_ns += budget_ns;
    gate.OnWait(clock.NowNs() - begin_ns, true);
  }
  void Waits(int count, int64_t gap_ns) {
    for (int i = 0; i < count; ++i) {
      Wait(gap_ns);
    }
  }

  FakeClock clock;
  SpinGate gate{kLimitNs};
  int64_t looked_ns = 0;
  int found = 0;
};

TEST(SpinGateTest, ItIsShutAtFirstAndOpensAfterShortWaitsInARow) {
  Waiter waiter;
  waiter.Waits(SpinGate::kFewest - 1, kShortNs);
  EXPECT_EQ(waiter.gate.budget_ns(), 0);
  waiter.Wait(kShortNs);
  EXPECT_EQ(waiter.gate.budget_ns(), kLimitNs);
  waiter.Waits(1000, kShortNs);
  EXPECT_EQ(waiter.found, 1000);
}

TEST(SpinGateTest, LongWaitsNeverOpenIt) {
  Waiter waiter;
  waiter.Waits(10'000, kLongNs);
  EXPECT_EQ(waiter.looked_ns, 0);
}

TEST(SpinGateTest, WithALimitOfZeroItNeverOpens) {
  Waiter waiter;
  waiter.gate = SpinGate(0);
  waiter.Waits(1000, 0);
  EXPECT_EQ(waiter.gate.budget_ns(), 0);
}

TEST(SpinGateTest, TheEndOfABusyTimeCostsAFewLooksAndThenNone) {
  Waiter waiter;
  waiter.Waits(1000, kShortNs);
  const int64_t before_ns = waiter.looked_ns;
  waiter.Waits(1000, kLongNs);
  EXPECT_LE(waiter.looked_ns - before_ns, SpinGate::kCredit / SpinGate::kLongWaitCosts * kLimitNs);
  EXPECT_EQ(waiter.gate.budget_ns(), 0);
}

TEST(SpinGateTest, AnOddLongWaitAmongShortOnesChangesNothing) {
  Waiter waiter;
  for (int i = 0; i < 1000; ++i) {
    waiter.Waits(9, kShortNs);
    waiter.Wait(kLongNs);
  }
  EXPECT_GT(waiter.found, 8900);
}

TEST(SpinGateTest, WhereEveryOtherWaitIsLongItStaysShut) {
  Waiter waiter;
  for (int i = 0; i < 1000; ++i) {
    waiter.Wait(kShortNs);
    waiter.Wait(kLongNs);
  }
  EXPECT_EQ(waiter.looked_ns, 0);
}

// Blocked, such a wait looks short; looked at, it is too long. The first finding is made less and less often.
TEST(SpinGateTest, WaitsALittleLongerThanTheLimitCostNextToNothing) {
  Waiter waiter;
  waiter.Waits(200, kLimitNs + 10 * kNanosPerMicro);
  const int64_t first_ns = waiter.looked_ns;
  EXPECT_GT(first_ns, 0);
  const int64_t begin_ns = waiter.clock.NowNs();
  waiter.Waits(100'000, kLimitNs + 10 * kNanosPerMicro);
  EXPECT_EQ(waiter.found, 0);
  EXPECT_LT(waiter.looked_ns - first_ns, (waiter.clock.NowNs() - begin_ns) / 1000);  // a thousandth of the time
}

TEST(SpinGateTest, ManyShortWaitsMakeItTrustAgain) {
  Waiter waiter;
  waiter.Waits(100'000, kLimitNs + 10 * kNanosPerMicro);
  waiter.Waits(SpinGate::kMost, kShortNs);
  waiter.Waits(SpinGate::kTrusted, kShortNs);
  waiter.Waits(4, kLongNs);  // shut once more, but that alone makes it want little
  waiter.Waits(4 * SpinGate::kFewest, kShortNs);
  EXPECT_EQ(waiter.gate.budget_ns(), kLimitNs);
}

// Found after a pause in which somebody else had the processor: the look was in vain all the same.
TEST(SpinGateTest, WhatWasFoundTooLateCountsAsLong) {
  Waiter waiter;
  waiter.Waits(100, kShortNs);
  for (int i = 0; i < 4; ++i) {
    waiter.gate.OnWait(kLimitNs + 1, false);
  }
  EXPECT_EQ(waiter.gate.budget_ns(), 0);
}

}  // namespace
}  // namespace msserving
