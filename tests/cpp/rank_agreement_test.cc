#include "distributed/rank_agreement.h"

#include <gtest/gtest.h>

#include <vector>

#include "rank_test_support.h"

namespace msserving {
namespace {

using testing::FloatInfo;

std::vector<RankDescription> Ranks(size_t count) {
  std::vector<RankDescription> ranks(count);
  for (uint32_t i = 0; i < count; ++i) {
    RankModel model;
    model.file = "m" + std::to_string(i);
    model.info.inputs = {FloatInfo({4, 2})};
    model.info.outputs = {FloatInfo({4, 1})};
    model.info.way = "kernel replay";
    ranks[i] = {i, "h", false, {model}};
  }
  return ranks;
}

TEST(RankAgreementTest, TakesStage0sInputsAndTheLastRanksOutputs) {
  auto ranks = Ranks(4);
  for (const size_t later : {2, 3}) {
    ranks[later].models[0].info.inputs.clear();
    ranks[later].models[0].info.outputs = {FloatInfo({4, 7})};
  }
  std::vector<SessionInfo> made;
  const Status status = AgreeOnModels(ranks, 2, &made);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(made[0].inputs[0].dims[1], 2);
  EXPECT_EQ(made[0].outputs[0].dims[1], 7);
  EXPECT_EQ(made[0].way, "4 ranks: kernel replay");
}

TEST(RankAgreementTest, LaterStagesTakeTheSameInputsOrNone) {
  auto ranks = Ranks(2);
  std::vector<SessionInfo> made;
  EXPECT_TRUE(AgreeOnModels(ranks, 2, &made).ok());
  ranks[1].models[0].info.inputs = {FloatInfo({4, 3})};
  EXPECT_EQ(AgreeOnModels(ranks, 2, &made).message(),
            "the inputs of sub-graph 0 disagree: rank 0 on h has kMSI_Float32[4, 2] (m0), rank 1 on h has "
            "kMSI_Float32[4, 3] (m1)");
}

TEST(RankAgreementTest, RanksOfStage0MustAllTakeInputs) {
  auto ranks = Ranks(2);
  ranks[1].models[0].info.inputs.clear();
  std::vector<SessionInfo> made;
  EXPECT_FALSE(AgreeOnModels(ranks, 1, &made).ok());
}

TEST(RankAgreementTest, OutputsAgreeInsideAStage) {
  auto ranks = Ranks(4);
  ranks[3].models[0].info.outputs = {FloatInfo({4, 2})};
  std::vector<SessionInfo> made;
  EXPECT_EQ(AgreeOnModels(ranks, 2, &made).message(),
            "the outputs of sub-graph 0 disagree: rank 2 on h has kMSI_Float32[4, 1] (m2), rank 3 on h has "
            "kMSI_Float32[4, 2] (m3)");
  ranks[2].models[0].info.outputs = ranks[3].models[0].info.outputs;
  EXPECT_TRUE(AgreeOnModels(ranks, 2, &made).ok());
  ranks[2].models[0].info.outputs[0].rank = -1;  // unknown
  EXPECT_TRUE(AgreeOnModels(ranks, 2, &made).ok());
}

TEST(RankAgreementTest, BatchSizesAreThoseThatAllRanksHave) {
  auto ranks = Ranks(3);
  ranks[0].models[0].info.batch_sizes = {1, 2, 4};
  ranks[1].models[0].info.batch_sizes = {1, 4};
  ranks[2].models[0].info.batch_sizes = {1, 2, 4};
  std::vector<SessionInfo> made;
  ASSERT_TRUE(AgreeOnModels(ranks, 1, &made).ok());
  EXPECT_EQ(made[0].batch_sizes, (std::vector<int64_t>{1, 4}));
  ranks[1].models[0].info.batch_sizes.clear();  // compiled for its own size, 4, alone
  ASSERT_TRUE(AgreeOnModels(ranks, 1, &made).ok());
  EXPECT_EQ(made[0].batch_sizes, (std::vector<int64_t>{4}));
  ranks[1].models[0].info.batch_sizes = {3};
  EXPECT_EQ(AgreeOnModels(ranks, 1, &made).message(), "there is no batch size that sub-graph 0 has on all ranks");
}

TEST(RankAgreementTest, AStageWithoutInputsSaysNothingOfBatchSizes) {
  auto ranks = Ranks(2);
  ranks[0].models[0].info.batch_sizes = {4};
  ranks[1].models[0].info.inputs.clear();
  ranks[1].models[0].info.outputs = {FloatInfo({7, 3})};
  std::vector<SessionInfo> made;
  const Status status = AgreeOnModels(ranks, 2, &made);
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(made[0].batch_sizes, (std::vector<int64_t>{4}));
}

TEST(RankAgreementTest, AllRanksHaveAsManySubgraphs) {
  auto ranks = Ranks(2);
  ranks[1].models.push_back(ranks[1].models[0]);
  std::vector<SessionInfo> made;
  EXPECT_EQ(AgreeOnModels(ranks, 1, &made).message(), "rank 1 on h has 2 sub-graphs, rank 0 on h has 1");
}

}  // namespace
}  // namespace msserving
