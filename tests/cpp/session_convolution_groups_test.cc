// Which operators are run together with a convolution: small graphs, one a promise.

#include "session/libraries/mindspore/convolution_groups.h"

#include <gtest/gtest.h>

#include "graph_node_builder.h"

namespace msserving::mindspore_session {
namespace {

GraphNode Convolution(size_t source) { return Node(NodeKind::kConvolution, {source, kNoNode}); }
GraphNode Affine(size_t source) { return Node(NodeKind::kAffine, {source, kNoNode}); }
GraphNode Add(size_t a, size_t b) { return Node(NodeKind::kAdd, {a, b}); }

TEST(ConvolutionGroups, TakesAllThatFollows) {
  const auto groups = FindConvolutionGroups(
      {Convolution(kNoNode), Affine(0), Affine(1), Add(2, kNoNode), Node(NodeKind::kRelu6, {3})}, {{4, 0}});
  ASSERT_EQ(groups.size(), 1u);
  EXPECT_EQ(groups[0].affine, (std::vector<size_t>{1, 2}));
  EXPECT_EQ(groups[0].add, 3u);
  EXPECT_EQ(groups[0].residual, 1u);
  EXPECT_EQ(groups[0].activation, 4u);
  EXPECT_EQ(groups[0].last, 4u);
}

TEST(ConvolutionGroups, FindsTheResidualOnEitherSide) {
  const auto groups = FindConvolutionGroups({Convolution(kNoNode), Add(kNoNode, 0)}, {{1, 0}});
  EXPECT_EQ(groups[0].add, 1u);
  EXPECT_EQ(groups[0].residual, 0u);
}

TEST(ConvolutionGroups, OneOfTwoConvolutionsTakesTheirSum) {
  const auto groups = FindConvolutionGroups({Convolution(kNoNode), Convolution(kNoNode), Add(0, 1), Relu(2)}, {{3, 0}});
  ASSERT_EQ(groups.size(), 2u);
  EXPECT_EQ(groups[0].last, 3u);
  EXPECT_EQ(groups[1].last, 1u);
  EXPECT_EQ(groups[1].add, kNoNode);
}

TEST(ConvolutionGroups, StopsAtWhatIsReadTwice) {
  const auto groups = FindConvolutionGroups({Convolution(kNoNode), Relu(0), Affine(0)}, {{1, 0}, {2, 0}});
  EXPECT_EQ(groups[0].last, 0u);
}

TEST(ConvolutionGroups, DoesNotAddAConvolutionToItself) {
  const auto groups = FindConvolutionGroups({Convolution(kNoNode), Add(0, 0)}, {{1, 0}});
  EXPECT_EQ(groups[0].last, 0u);
}

TEST(ConvolutionGroups, StopsAtAnOutputOfTheGraph) {
  const auto groups = FindConvolutionGroups({Convolution(kNoNode), Affine(0), Relu(1)}, {{1, 0}, {2, 0}});
  EXPECT_EQ(groups[0].last, 1u);
  EXPECT_EQ(groups[0].activation, kNoNode);
}

TEST(ConvolutionGroups, StopsWhereAnotherOutputOfANodeIsRead) {
  std::vector<GraphNode> nodes{Convolution(kNoNode), Affine(0), Relu(1), Node(NodeKind::kOther, {kNoNode})};
  nodes[3].operands = {{1, 1}};
  EXPECT_EQ(FindConvolutionGroups(nodes, {{2, 0}})[0].last, 1u);
}

TEST(ConvolutionGroups, ABiasThatAConvolutionComputesIsNotFolded) {
  const auto groups = FindConvolutionGroups({Convolution(kNoNode), Node(NodeKind::kAffine, {kNoNode, 0})}, {{1, 0}});
  EXPECT_EQ(groups[0].last, 0u);
}

TEST(ConvolutionGroups, DoesNotReachOverANodeThatWritesInPlace) {
  std::vector<GraphNode> nodes{Convolution(kNoNode), Node(NodeKind::kOther, {kNoNode}), Affine(0)};
  EXPECT_EQ(FindConvolutionGroups(nodes, {{2, 0}})[0].last, 2u);
  nodes[1].writes_in_place = true;
  EXPECT_EQ(FindConvolutionGroups(nodes, {{2, 0}})[0].last, 0u);
}

TEST(ConvolutionGroups, WithoutConvolutionsThereAreNone) {
  EXPECT_TRUE(FindConvolutionGroups({}, {}).empty());
  EXPECT_TRUE(FindConvolutionGroups({Relu(kNoNode), Affine(0)}, {{1, 0}}).empty());
}

}  // namespace
}  // namespace msserving::mindspore_session
