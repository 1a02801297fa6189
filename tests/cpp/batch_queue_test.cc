// When batches close and what goes into them, on a clock that stands still until told otherwise.
#include "batching/batch_queue.h"

#include <gtest/gtest.h>

#include <deque>
#include <vector>

namespace msserving {
namespace {

class BatchQueueTest : public ::testing::Test {
 protected:
  BatchItem* Push(BatchQueue& queue, int64_t deadline_ns = kNoDeadline) {
    BatchItem& item = items_.emplace_back();
    item.queued_ns = clock_.NowNs();
    item.deadline_ns = deadline_ns;
    queue.Push(&item);
    return &item;
  }

  std::vector<BatchItem*> Take(BatchQueue& queue) {
    std::vector<BatchItem*> batch(queue.max_batch());
    last_ = queue.Take(batch);
    batch.resize(last_.count);
    return batch;
  }

  static uint64_t Count(const BatchQueue& queue, BatchRelease reason) { return queue.releases(reason); }

  FakeClock clock_;
  std::deque<BatchItem> items_;
  BatchQueue::Batch last_;
};

TEST_F(BatchQueueTest, ObeysBatchSize) {
  BatchQueue queue({4, 0}, clock_);
  std::vector<BatchItem*> pushed;
  for (int i = 0; i < 10; ++i) {
    pushed.push_back(Push(queue));
  }
  std::vector<BatchItem*> taken;
  for (const size_t expected : {4U, 4U, 2U}) {
    const auto batch = Take(queue);
    EXPECT_EQ(batch.size(), expected);
    taken.insert(taken.end(), batch.begin(), batch.end());
  }
  EXPECT_EQ(taken, pushed);  // oldest first
  EXPECT_FALSE(queue.Ready());
  EXPECT_EQ(Count(queue, BatchRelease::kFull), 2U);
  EXPECT_EQ(Count(queue, BatchRelease::kIdle), 1U);
}

TEST_F(BatchQueueTest, LoneItemSharesItsBatchWithNobody) {
  BatchQueue queue({4, 0}, clock_);
  std::vector<BatchItem*> pushed;
  for (int i = 0; i < 5; ++i) {
    pushed.push_back(Push(queue));
  }
  pushed[2]->alone = true;
  EXPECT_EQ(Take(queue), (std::vector<BatchItem*>{pushed[0], pushed[1]}));
  EXPECT_EQ(Take(queue), (std::vector<BatchItem*>{pushed[2]}));
  EXPECT_EQ(Take(queue), (std::vector<BatchItem*>{pushed[3], pushed[4]}));
}

TEST_F(BatchQueueTest, SingleItemsAreTakenTogetherAndCountedEach_LoneOnesAlone) {
  BatchQueue queue({1, 0}, clock_);
  std::vector<BatchItem*> pushed;
  for (int i = 0; i < 9; ++i) {
    pushed.push_back(Push(queue, i == 1 ? clock_.NowNs() : kNoDeadline));
  }
  pushed[5]->alone = true;
  std::vector<BatchItem*> room(4);
  const auto take = [&] {
    last_ = queue.TakeSingly(room);
    return std::vector<BatchItem*>(room.begin(), room.begin() + static_cast<std::ptrdiff_t>(last_.count));
  };
  EXPECT_EQ(take(), (std::vector<BatchItem*>{pushed[0], pushed[2], pushed[3], pushed[4]}));
  EXPECT_EQ(last_.expired, pushed[1]);
  EXPECT_EQ(take(), (std::vector<BatchItem*>{pushed[5]}));
  EXPECT_EQ(take(), (std::vector<BatchItem*>{pushed[6], pushed[7], pushed[8]}));
  EXPECT_TRUE(take().empty());
  EXPECT_EQ(Count(queue, BatchRelease::kFull), 8U);
}

TEST_F(BatchQueueTest, WithoutAWaitNoIdleDeviceWaits) {
  BatchQueue queue({32, 0}, clock_);
  EXPECT_EQ(queue.ReadyAtNs(), kNoDeadline);
  Push(queue);
  EXPECT_TRUE(queue.Ready());
  EXPECT_EQ(Take(queue).size(), 1U);
}

TEST_F(BatchQueueTest, WaitsNoLongerThanMaxWait) {
  BatchQueue queue({4, 100}, clock_);
  Push(queue);
  clock_.Advance(60 * kNanosPerMicro);
  Push(queue);
  EXPECT_FALSE(queue.Ready());
  EXPECT_TRUE(Take(queue).empty());
  EXPECT_EQ(queue.ReadyAtNs() - clock_.NowNs(), 40 * kNanosPerMicro);  // the oldest counts
  clock_.Advance(39 * kNanosPerMicro);
  EXPECT_FALSE(queue.Ready());
  clock_.Advance(kNanosPerMicro);
  EXPECT_TRUE(queue.Ready());
  EXPECT_EQ(Take(queue).size(), 2U);
  EXPECT_EQ(Count(queue, BatchRelease::kWaited), 1U);
}

TEST_F(BatchQueueTest, FullBatchDoesNotWait) {
  BatchQueue queue({2, 1'000'000}, clock_);
  Push(queue);
  EXPECT_FALSE(queue.Ready());
  Push(queue);
  EXPECT_TRUE(queue.Ready());
  EXPECT_EQ(Take(queue).size(), 2U);
  EXPECT_EQ(Count(queue, BatchRelease::kFull), 1U);
}

TEST_F(BatchQueueTest, DeadlineInsideTheWaitReleasesAtOnce) {
  BatchQueue queue({4, 1000}, clock_);
  Push(queue);
  EXPECT_FALSE(queue.Ready());
  Push(queue, clock_.NowNs() + 500 * kNanosPerMicro);
  EXPECT_TRUE(queue.Ready());
  EXPECT_EQ(Take(queue).size(), 2U);
  EXPECT_EQ(Count(queue, BatchRelease::kDeadline), 1U);
  Push(queue);  // the deadline that went does not count any more
  EXPECT_FALSE(queue.Ready());
}

TEST_F(BatchQueueTest, DeadlineLeftInTheQueueStillCounts) {
  BatchQueue queue({2, 1000}, clock_);
  Push(queue);
  Push(queue);
  Push(queue, clock_.NowNs() + 500 * kNanosPerMicro);
  EXPECT_EQ(Take(queue).size(), 2U);
  EXPECT_TRUE(queue.Ready());
  EXPECT_EQ(Take(queue).size(), 1U);
  EXPECT_EQ(Count(queue, BatchRelease::kDeadline), 1U);
}

TEST_F(BatchQueueTest, ExpiredItemsAreDroppedAndReported) {
  BatchQueue queue({2, 0}, clock_);
  BatchItem* late = Push(queue, clock_.NowNs() + 10);
  BatchItem* good = Push(queue);
  BatchItem* last = Push(queue);
  clock_.Advance(10);
  EXPECT_EQ(Take(queue), (std::vector<BatchItem*>{good, last}));  // the batch is filled up behind the gap
  EXPECT_EQ(last_.expired, late);
  EXPECT_EQ(late->next, nullptr);
  EXPECT_EQ(last_.cancelled, nullptr);
}

TEST_F(BatchQueueTest, CancelledItemsAreDroppedAndReported) {
  BatchQueue queue({2, 0}, clock_);
  std::atomic<uint32_t> cancelled{0};
  BatchItem* first = Push(queue);
  first->cancelled = &cancelled;
  cancelled = 1;
  EXPECT_TRUE(Take(queue).empty());
  EXPECT_EQ(last_.cancelled, first);
  EXPECT_EQ(queue.size(), 0U);
  EXPECT_EQ(Count(queue, BatchRelease::kIdle), 0U);  // an empty batch is no release
}

TEST_F(BatchQueueTest, DrainReleasesWhatWaits) {
  BatchQueue queue({4, 1'000'000}, clock_);
  Push(queue);
  EXPECT_FALSE(queue.Ready());
  queue.Drain();
  EXPECT_TRUE(queue.Ready());
  EXPECT_EQ(Take(queue).size(), 1U);
  EXPECT_EQ(Count(queue, BatchRelease::kDrain), 1U);
}

TEST_F(BatchQueueTest, ItemsMayBeUsedAgain) {
  BatchQueue queue({4, 0}, clock_);
  BatchItem* item = Push(queue);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Take(queue), std::vector<BatchItem*>{item});
    queue.Push(item);
  }
  EXPECT_EQ(queue.size(), 1U);
}

TEST(BatchQueue, RealClockEndsTheWait) {
  BatchQueue queue({4, 2000}, RealClock());
  BatchItem item;
  item.queued_ns = RealClock().NowNs();
  queue.Push(&item);
  const int64_t ready_ns = queue.ReadyAtNs();
  while (!queue.Ready()) {
  }
  EXPECT_GE(RealClock().NowNs(), ready_ns);
}

}  // namespace
}  // namespace msserving
