#include "server/queue_estimate.h"

#include <gtest/gtest.h>

#include <deque>

namespace msserving {
namespace {

constexpr int64_t kMs = kNanosPerMilli;

// `count` instances take `each_ns` while the queue stands at `depth`; then what is left of it is cancelled.
int64_t Work(QueueEstimate* estimate, int count, int64_t each_ns, int64_t now_ns, uint64_t depth = 1) {
  estimate->OnGiven(depth, now_ns);
  for (int i = 0; i < count; ++i) {
    now_ns += each_ns;
    estimate->OnBack(1, 1, now_ns, 0);
    estimate->OnGiven(1, now_ns);
  }
  estimate->OnBack(depth, 0, now_ns, 0);
  return now_ns;
}

TEST(QueueEstimateTest, NothingMeasured_NothingToWaitFor) {
  QueueEstimate estimate;
  estimate.OnGiven(1000, 5);
  EXPECT_EQ(estimate.WaitNs(), 0);
}

TEST(QueueEstimateTest, WaitIsWhatIsOutstandingTimesThePace) {
  QueueEstimate estimate;
  const int64_t now = Work(&estimate, 20, 5 * kMs, 0, 60);
  EXPECT_EQ(estimate.WaitNs(), 0);
  estimate.OnGiven(40, now);
  EXPECT_EQ(estimate.WaitNs(), 40 * 5 * kMs);
}

TEST(QueueEstimateTest, IdleTimeIsNoWork) {
  QueueEstimate estimate;
  int64_t now = 0;
  for (int i = 0; i < 50; ++i) {
    now = Work(&estimate, 1, 4 * kMs, now + 900 * kMs);
  }
  estimate.OnGiven(2, now);
  EXPECT_EQ(estimate.WaitNs(), 2 * 4 * kMs);
}

TEST(QueueEstimateTest, WhatExpiredInTheQueueDoesNotMakeTheWorkerFaster) {
  QueueEstimate estimate;
  const int64_t now = Work(&estimate, 20, 5 * kMs, 0, 60);
  estimate.OnGiven(100, now);
  estimate.OnBack(90, 0, now + kMs, 0);
  EXPECT_EQ(estimate.outstanding(), 10u);
  EXPECT_EQ(estimate.WaitNs(), 10 * 5 * kMs);
}

TEST(QueueEstimateTest, FollowsAChangeOfPace) {
  QueueEstimate estimate;
  int64_t now = Work(&estimate, 50, 10 * kMs, 0, 60);
  now = Work(&estimate, 400, kMs, now, 60);
  estimate.OnGiven(100, now);
  EXPECT_LT(estimate.WaitNs(), 100 * 2 * kMs);
  EXPECT_GE(estimate.WaitNs(), 100 * kMs);
}

TEST(QueueEstimateTest, PaceOfAShortQueueSaysNothingOfALongOne) {
  QueueEstimate estimate;
  int64_t now = Work(&estimate, 20, 100 * kMs, 0);
  estimate.OnGiven(64, now);
  EXPECT_EQ(estimate.WaitNs(), 0) << "they may all be one batch";
  now += 100 * kMs;
  estimate.OnBack(32, 32, now, 0);
  estimate.OnGiven(32, now);
  EXPECT_EQ(estimate.WaitNs(), 64 * 100 * kMs / 32) << "now it is known";
}

TEST(QueueEstimateTest, WhatExpiredIsBelievedUntilSomethingIsMeasured) {
  QueueEstimate estimate;
  int64_t now = Work(&estimate, 20, 5 * kMs, 0, 60);
  estimate.OnGiven(1000, now);
  EXPECT_EQ(estimate.WaitNs(), 0) << "not known yet";
  now += 900 * kMs;
  estimate.OnBack(100, 0, now, 900 * kMs);
  EXPECT_EQ(estimate.WaitNs(), 900 * kMs);
  estimate.OnBack(890, 0, now, 900 * kMs);
  EXPECT_EQ(estimate.WaitNs(), 10 * 5 * kMs) << "a queue of a length that was measured";
  estimate.OnBack(10, 0, now, 900 * kMs);
  estimate.OnGiven(1000, now);
  EXPECT_EQ(estimate.WaitNs(), 0) << "the queue was empty: another chance";
}

// Requests every millisecond, each with a second of time, to a worker that takes 4 ms for one and stands still for 1.2
// s at first: by then all that it has is late or about to be.
TEST(QueueEstimateTest, AnOverloadThatBeganWithAStandstillEnds) {
  constexpr int64_t kDeadline = kNanosPerSecond;
  constexpr int64_t kWork = 4 * kMs;
  QueueEstimate estimate;
  std::deque<int64_t> queue;  // when they were given
  int64_t free_at = 1200 * kMs;
  int64_t running = -1;
  int in_time = 0;
  for (int64_t now = 0; now < 6 * kNanosPerSecond; now += kMs) {
    if (estimate.WaitNs() <= kDeadline / 4 * 3) {
      estimate.OnGiven(1, now);
      queue.push_back(now);
    }
    if (now < free_at) {
      continue;
    }
    if (running >= 0) {
      const bool good = now - running <= kDeadline;  // what ends too late counts as expired
      estimate.OnBack(1, good ? 1 : 0, now, now - running);
      in_time += good && now > 4 * kNanosPerSecond ? 1 : 0;
      running = -1;
    }
    while (!queue.empty() && now - queue.front() > kDeadline) {
      estimate.OnBack(1, 0, now, now - queue.front());
      queue.pop_front();
    }
    if (!queue.empty()) {
      running = queue.front();
      queue.pop_front();
      free_at = now + kWork;
    }
  }
  EXPECT_GT(in_time, 2 * kNanosPerSecond / kWork * 9 / 10) << "of the last two seconds";
}

TEST(QueueEstimateTest, OneSlowInstanceIsAMeasurement) {
  QueueEstimate estimate;
  const int64_t now = Work(&estimate, 1, 3 * kNanosPerSecond, 0);
  estimate.OnGiven(2, now);
  EXPECT_EQ(estimate.WaitNs(), 6 * kNanosPerSecond);
}

}  // namespace
}  // namespace msserving
