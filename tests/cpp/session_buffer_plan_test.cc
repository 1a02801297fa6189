// The plan of a graph's buffers, checked against its two promises on random graphs.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "session/libraries/mindspore/buffer_plan.h"

namespace msserving::mindspore_session {
namespace {

constexpr size_t kAlignment = 64;

size_t Rounded(size_t bytes) { return std::max<size_t>((bytes + kAlignment - 1) / kAlignment, 1) * kAlignment; }

void ExpectValid(const std::vector<Lifetime>& lifetimes, const BufferPlan& plan) {
  ASSERT_EQ(plan.offsets.size(), lifetimes.size());
  for (size_t a = 0; a < lifetimes.size(); ++a) {
    EXPECT_EQ(plan.offsets[a] % kAlignment, 0u);
    EXPECT_LE(plan.offsets[a] + lifetimes[a].bytes, plan.bytes);
    for (size_t b = 0; b < a; ++b) {
      if (lifetimes[a].last < lifetimes[b].first || lifetimes[b].last < lifetimes[a].first) continue;
      const bool apart = plan.offsets[a] + Rounded(lifetimes[a].bytes) <= plan.offsets[b] ||
                         plan.offsets[b] + Rounded(lifetimes[b].bytes) <= plan.offsets[a];
      EXPECT_TRUE(apart) << "tensors " << a << " and " << b << " live at the same time and overlap";
    }
  }
}

// No plan can do with less: the most that is alive at one step.
size_t LeastBytes(const std::vector<Lifetime>& lifetimes) {
  size_t most = 0;
  for (const Lifetime& at : lifetimes) {
    size_t alive = 0;
    for (const Lifetime& other : lifetimes) {
      if (other.first <= at.first && at.first <= other.last) alive += Rounded(other.bytes);
    }
    most = std::max(most, alive);
  }
  return most;
}

TEST(SessionBufferPlan, NothingNeedsNothing) { EXPECT_EQ(PlanBuffers({}, kAlignment).bytes, 0u); }

TEST(SessionBufferPlan, AChainNeedsTwoBuffers) {
  std::vector<Lifetime> chain;
  for (size_t i = 0; i < 50; ++i) chain.push_back({1000, i, i + 1});
  const BufferPlan plan = PlanBuffers(chain, kAlignment);
  ExpectValid(chain, plan);
  EXPECT_EQ(plan.bytes, 2048u);
}

TEST(SessionBufferPlan, TensorsWithoutBytesHaveAPlaceOfTheirOwn) {
  const std::vector<Lifetime> empty = {{0, 0, 3}, {0, 1, 2}};
  const BufferPlan plan = PlanBuffers(empty, kAlignment);
  EXPECT_NE(plan.offsets[0], plan.offsets[1]);
  EXPECT_EQ(plan.bytes, 128u);
}

TEST(SessionBufferPlan, AnOutputIsNeverReused) {
  const std::vector<Lifetime> lifetimes = {{64, 0, SIZE_MAX}, {64, 1, 2}, {64, 3, 4}, {64, 5, SIZE_MAX}};
  const BufferPlan plan = PlanBuffers(lifetimes, kAlignment);
  ExpectValid(lifetimes, plan);
  EXPECT_EQ(plan.bytes, 128u);
}

TEST(SessionBufferPlan, RandomGraphsNeverOverlapAndWasteLittle) {
  std::mt19937 random(7);
  double needed = 0;
  double least = 0;
  for (int round = 0; round < 200; ++round) {
    std::vector<Lifetime> lifetimes(random() % 60 + 1);
    for (Lifetime& lifetime : lifetimes) {
      lifetime.bytes = random() % 5000;
      lifetime.first = random() % 40;
      lifetime.last = lifetime.first + random() % 8;
    }
    const BufferPlan plan = PlanBuffers(lifetimes, kAlignment);
    ExpectValid(lifetimes, plan);
    EXPECT_GE(plan.bytes, LeastBytes(lifetimes));
    needed += static_cast<double>(plan.bytes);
    least += static_cast<double>(LeastBytes(lifetimes));
  }
  EXPECT_LT(needed, 1.15 * least);
}

}  // namespace
}  // namespace msserving::mindspore_session
