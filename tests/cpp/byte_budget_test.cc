#include "base/byte_budget.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

namespace msserving {
namespace {

TEST(ByteBudgetTest, TakesUpToItsLimitAndNotMore) {
  ByteBudget budget(100);
  EXPECT_TRUE(budget.Take(60));
  EXPECT_FALSE(budget.Take(41));
  EXPECT_EQ(budget.used(), 60u) << "what is refused is not counted";
  EXPECT_TRUE(budget.Take(40));
  budget.TakeAnyway(50);
  EXPECT_EQ(budget.used(), 150u);
  EXPECT_EQ(budget.left(), 0u);
  budget.Give(150);
  budget.set_limit(10);
  EXPECT_FALSE(budget.Take(11));
}

TEST(ByteBudgetTest, TheRefusalSaysHowMuchThereIsAndWhatToDo) {
  ByteBudget budget(100);
  budget.TakeAnyway(70);
  EXPECT_EQ(budget.Refusal(40),
            "bytes in flight exceed the limit 100: 70 are in use and 40 more are needed; try again later");
}

TEST(ByteShareTest, OneHolderGetsItsPartAndLeavesTheRest) {
  ByteBudget budget(100);
  ByteShare one(&budget, 0.25);
  ByteShare other(&budget, 0.25);
  ByteCharge first;
  ByteCharge second;
  EXPECT_TRUE(first.Take(&one, 20));
  EXPECT_FALSE(second.Take(&one, 6));
  EXPECT_EQ(one.Refusal(6, 0),
            "bytes in flight of this connection exceed its share 25 of 100: 20 are in use and 6 more are needed; read "
            "the replies, and try again later");
  EXPECT_EQ(one.left(0), 5u);
  EXPECT_TRUE(second.Take(&one, 5));
  EXPECT_EQ(budget.used(), 25u);
  EXPECT_TRUE(ByteCharge().Take(&other, 25)) << "given back at once";
  EXPECT_EQ(budget.used(), 25u);
  first.Reset();
  EXPECT_EQ(one.held(), 5u);
  EXPECT_TRUE(first.Take(&one, 20));
}

TEST(ByteShareTest, ASingleMessageMayHaveMoreThanAShare) {
  ByteBudget budget(100);
  ByteShare share(&budget, 0.25);
  ByteCharge message;
  EXPECT_TRUE(message.Take(&share, 20));
  EXPECT_TRUE(message.Take(&share, 60)) << "nothing else is held";
  EXPECT_FALSE(message.Take(&share, 21)) << "there is no more";
  EXPECT_EQ(share.left(message.bytes()), 20u);
  EXPECT_EQ(share.Refusal(21, message.bytes()), budget.Refusal(21)) << "the whole is what is missing";
  ByteCharge second;
  EXPECT_FALSE(second.Take(&share, 1));
  message.Reset();
  EXPECT_TRUE(second.Take(&share, 1));
}

TEST(ByteShareTest, WhatCannotBeRefusedPassesTheShare) {
  ByteBudget budget(100);
  ByteShare share(&budget, 0.25);
  ByteCharge reply;
  reply.TakeAnyway(&share, 50);
  EXPECT_EQ(share.held(), 50u);
  EXPECT_FALSE(ByteCharge().Take(&share, 1));
  ByteCharge moved = std::move(reply);
  EXPECT_EQ(moved.bytes(), 50u);
  moved = ByteCharge();
  EXPECT_EQ(share.held(), 0u);
  EXPECT_EQ(budget.used(), 0u);
}

TEST(ByteShareTest, FollowsTheLimit) {
  ByteBudget budget(100);
  ByteShare share(&budget, 0.5);
  ByteCharge held;
  EXPECT_TRUE(held.Take(&share, 50));
  EXPECT_FALSE(ByteCharge().Take(&share, 10));
  budget.set_limit(1000);
  EXPECT_EQ(share.limit(), 500u);
  EXPECT_TRUE(ByteCharge().Take(&share, 10));
}

}  // namespace
}  // namespace msserving
