// Which operators are run together with a dense layer: small graphs, one a promise.

#include "session/libraries/mindspore/dense_groups.h"

#include <gtest/gtest.h>

#include "graph_node_builder.h"

namespace msserving::mindspore_session {
namespace {

GraphNode Dense(size_t source) { return Node(NodeKind::kDense, {source, kNoNode, kNoNode, kNoNode}); }
GraphNode AddVector(size_t source) { return Node(NodeKind::kAddVector, {source, kNoNode}); }

TEST(DenseGroups, TakesAllThatFollows) {
  for (const NodeKind activation :
       {NodeKind::kRelu, NodeKind::kRelu6, NodeKind::kSigmoid, NodeKind::kTanh, NodeKind::kGelu}) {
    const auto groups =
        FindDenseGroups({Dense(kNoNode), AddVector(0), AddVector(1), Node(activation, {2}), Relu(3)}, {{4, 0}});
    ASSERT_EQ(groups.size(), 1u);
    EXPECT_EQ(groups[0].dense, 0u);
    ASSERT_EQ(groups[0].biases.size(), 2u);
    EXPECT_EQ(groups[0].biases[0].node, 1u);
    EXPECT_EQ(groups[0].biases[1].node, 2u);
    EXPECT_EQ(groups[0].activation, 3u);
    EXPECT_EQ(groups[0].last, 3u) << "a second activation is not its own";
  }
}

TEST(DenseGroups, EachLayerOfAPerceptronIsAGroup) {
  const auto groups = FindDenseGroups({Dense(kNoNode), AddVector(0), Relu(1), Dense(2), AddVector(3)}, {{4, 0}});
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].last, 2u);
  EXPECT_EQ(groups[1].dense, 3u);
  EXPECT_EQ(groups[1].last, 4u);
  EXPECT_EQ(groups[1].activation, kNoNode);
}

TEST(DenseGroups, FindsTheVectorOnEitherSide) {
  const auto right = FindDenseGroups({Dense(kNoNode), AddVector(0)}, {{1, 0}});
  EXPECT_EQ(right[0].biases[0].operand, 1u);
  const auto left = FindDenseGroups({Dense(kNoNode), Node(NodeKind::kAddVector, {kNoNode, 0})}, {{1, 0}});
  EXPECT_EQ(left[0].biases[0].operand, 0u);
}

TEST(DenseGroups, TakesAnActivationBehindAnotherShape) {
  std::vector<GraphNode> nodes{Dense(kNoNode), AddVector(0), Node(NodeKind::kOtherShape, {1, kNoNode}), Relu(2)};
  const auto groups = FindDenseGroups(nodes, {{3, 0}});
  EXPECT_EQ(groups[0].other_shapes, (std::vector<size_t>{2}));
  EXPECT_EQ(groups[0].activation, 3u);
  EXPECT_EQ(FindDenseGroups(nodes, {{2, 0}, {3, 0}})[0].last, 2u);
  nodes[2].operands = {{kNoNode, 0}, {1, 0}};
  EXPECT_EQ(FindDenseGroups(nodes, {{3, 0}})[0].last, 1u) << "what it computes is not the shape";
}

TEST(DenseGroups, AVectorBehindTheActivationIsNotTaken) {
  const auto groups = FindDenseGroups({Dense(kNoNode), Relu(0), AddVector(1)}, {{2, 0}});
  EXPECT_EQ(groups[0].last, 1u);
  EXPECT_TRUE(groups[0].biases.empty());
}

TEST(DenseGroups, StopsAtWhatIsReadTwice) {
  const auto groups = FindDenseGroups({Dense(kNoNode), AddVector(0), Relu(1), Dense(1)}, {{2, 0}, {3, 0}});
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].last, 1u);
  EXPECT_EQ(groups[0].activation, kNoNode);
}

TEST(DenseGroups, StopsAtAnOutputOfTheGraph) {
  const auto groups = FindDenseGroups({Dense(kNoNode), AddVector(0), Relu(1)}, {{0, 0}, {2, 0}});
  EXPECT_EQ(groups[0].last, 0u);
  EXPECT_TRUE(groups[0].biases.empty());
}

TEST(DenseGroups, StopsAtWhatIsNotItsKind) {
  const auto groups = FindDenseGroups({Dense(kNoNode), Node(NodeKind::kAdd, {0, kNoNode}), Relu(1)}, {{2, 0}});
  EXPECT_EQ(groups[0].last, 0u);
}

TEST(DenseGroups, DoesNotReachOverANodeThatWritesInPlace) {
  std::vector<GraphNode> nodes{Dense(kNoNode), Node(NodeKind::kOther, {kNoNode}), AddVector(0)};
  EXPECT_EQ(FindDenseGroups(nodes, {{2, 0}})[0].last, 2u);
  nodes[1].writes_in_place = true;
  EXPECT_EQ(FindDenseGroups(nodes, {{2, 0}})[0].last, 0u);
  nodes[0].writes_in_place = true;
  EXPECT_TRUE(FindDenseGroups(nodes, {{2, 0}}).empty());
}

TEST(DenseGroups, WithoutDenseLayersThereAreNone) {
  EXPECT_TRUE(FindDenseGroups({}, {}).empty());
  EXPECT_TRUE(FindDenseGroups({Relu(kNoNode), AddVector(0)}, {{1, 0}}).empty());
}

}  // namespace
}  // namespace msserving::mindspore_session
