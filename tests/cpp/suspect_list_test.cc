// Which inputs are remembered after a death, and for how long.
#include "server/suspect_list.h"

#include <gtest/gtest.h>

namespace msserving {
namespace {

TensorView View(const std::string& text) {
  TensorView view;
  view.data = reinterpret_cast<const uint8_t*>(text.data());
  view.bytes = text.size();
  view.dtype = DataType::kBytes;
  return view;
}

class SuspectListTest : public testing::Test {
 protected:
  uint32_t Kill(const std::string& input, uint64_t worker, const std::string& scope = "s/1/m") {
    const TensorView view = View(input);
    return list_.AddDeath(scope, {&view, 1}, list_.FingerprintOf(scope, {&view, 1}), worker);
  }
  uint32_t Deaths(const std::string& input, const std::string& scope = "s/1/m") {
    const TensorView view = View(input);
    return list_.Look(scope, {&view, 1}).deaths;
  }

  FakeClock clock_;
  SuspectList list_{{3, 600 * kNanosPerSecond, 4}, clock_};
};

TEST_F(SuspectListTest, SameInputsOfTheSameMethodAlone) {
  EXPECT_TRUE(list_.empty());
  EXPECT_EQ(Kill("bad", 1), 1u);
  EXPECT_FALSE(list_.empty());
  EXPECT_EQ(Deaths("bad"), 1u);
  EXPECT_EQ(Deaths("bat"), 0u);
  EXPECT_EQ(Deaths("worse"), 0u);
  EXPECT_EQ(Deaths("bad", "s/2/m"), 0u);
}

TEST_F(SuspectListTest, OneDeathCountsOnce) {
  Kill("bad", 1);
  EXPECT_EQ(Kill("bad", 1), 1u);  // of another event loop, or twice in one batch
  EXPECT_EQ(Kill("bad", 2), 2u);
  EXPECT_FALSE(list_.Refused(2));
  EXPECT_TRUE(list_.Refused(Kill("bad", 3)));
}

TEST_F(SuspectListTest, IsForgottenWithTime) {
  Kill("bad", 1);
  clock_.Advance(599 * kNanosPerSecond);
  EXPECT_EQ(Deaths("bad"), 1u);
  clock_.Advance(2 * kNanosPerSecond);
  EXPECT_EQ(Deaths("bad"), 0u);
  EXPECT_TRUE(list_.empty());
}

TEST_F(SuspectListTest, HoldsABoundedNumber_TheWorstLongest) {
  for (uint64_t worker = 1; worker <= 3; ++worker) {
    Kill("bad", worker);
  }
  for (int i = 0; i < 20; ++i) {
    clock_.Advance(1);
    Kill("other " + std::to_string(i), 9);
  }
  EXPECT_EQ(Deaths("bad"), 3u);
  EXPECT_EQ(Deaths("other 0"), 0u);
  EXPECT_EQ(Deaths("other 19"), 1u);
}

TEST_F(SuspectListTest, ClearedIsForgotten) {
  Kill("bad", 1);
  const std::string bad = "bad";
  const TensorView again = View(bad);
  list_.Clear(list_.FingerprintOf("s/1/m", {&again, 1}));
  EXPECT_TRUE(list_.empty());
}

}  // namespace
}  // namespace msserving
