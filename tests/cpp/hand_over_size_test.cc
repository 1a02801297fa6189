#include "worker/hand_over_size.h"

#include <gtest/gtest.h>

#include "base/clock.h"

namespace msserving {
namespace {

constexpr int64_t kMomentNs = 100 * kNanosPerMicro;

TEST(HandOverSizeTest, WithoutBoundsItNeverChanges) {
  HandOverSize size;
  EXPECT_FALSE(size.adapts());
  EXPECT_EQ(size.now(), UINT32_MAX);
  size.Adapt(1, kNanosPerSecond);
  size.Adapt(1, 0);
  EXPECT_EQ(size.now(), UINT32_MAX);
  EXPECT_EQ(size.most(), 0U);
}

TEST(HandOverSizeTest, ItDoublesUpToWhatFitsIntoTheTime) {
  HandOverSize size(1, 1, 32, kMomentNs);
  EXPECT_TRUE(size.adapts());
  for (const uint32_t wanted : {2U, 4U, 8U, 10U, 10U}) {
    size.Adapt(size.now(), size.now() * kMomentNs / 10);
    EXPECT_EQ(size.now(), wanted);
  }
}

TEST(HandOverSizeTest, NoTimeAtAllComesToTheMost) {
  HandOverSize size(1, 1, 6, kMomentNs);
  for (const uint32_t wanted : {2U, 4U, 6U, 6U}) {
    size.Adapt(size.now(), 0);
    EXPECT_EQ(size.now(), wanted);
  }
}

TEST(HandOverSizeTest, OneSlowRunBringsItDownAtOnceToTheFewest) {
  HandOverSize size(UINT32_MAX, 3, 64, kMomentNs);
  EXPECT_EQ(size.now(), UINT32_MAX);  // of a Python stage: all that the queue gives
  size.Adapt(64, 64);
  EXPECT_EQ(size.now(), 64U);
  size.Adapt(64, 64 * kMomentNs);
  EXPECT_EQ(size.now(), 3U);
}

TEST(HandOverSizeTest, AHandOverOfNothingTeachesNothing) {
  HandOverSize size(4, 1, 64, kMomentNs);
  size.Adapt(0, kNanosPerSecond);
  EXPECT_EQ(size.now(), 4U);
}

}  // namespace
}  // namespace msserving
