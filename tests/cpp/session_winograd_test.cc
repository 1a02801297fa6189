// Winograd's method against the sum that defines a convolution.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "session/libraries/mindspore/winograd.h"

namespace msserving::mindspore_session {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Case {
  std::string name;
  WinogradShape shape;
  bool has_bias = false, has_residual = false;
  float low = -kInfinity, high = kInfinity;
};

// Exactly as many floats as are asked for, so that the address sanitizer sees a read beyond them.
std::vector<float> Random(int64_t count, float scale, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> values(-scale, scale);
  std::vector<float> made(static_cast<size_t>(count));
  for (float& value : made) value = values(generator);
  return made;
}

struct Data {
  explicit Data(const Case& from)
      : source(Random(from.shape.batch * from.shape.height * from.shape.width * from.shape.channels, 1, 1)),
        weights(Random(from.shape.outputs * from.shape.channels * 9, 1, 2)),
        scale(Random(from.shape.outputs, 2, 3)),
        bias(from.has_bias ? Random(from.shape.outputs, 1, 4) : std::vector<float>{}),
        destination(static_cast<size_t>(from.shape.batch * from.shape.OutHeight() * from.shape.OutWidth() *
                                        from.shape.outputs)) {
    if (from.has_residual) residual = Random(static_cast<int64_t>(destination.size()), 1, 5);
  }
  std::vector<float> source, weights, scale, bias, residual, destination;
};

std::vector<double> DirectSums(const Case& from, const Data& data) {
  const WinogradShape& shape = from.shape;
  std::vector<double> sums;
  const auto at = [](const std::vector<float>& values, int64_t index) { return values[static_cast<size_t>(index)]; };
  for (int64_t n = 0; n < shape.batch; ++n) {
    for (int64_t y = 0; y < shape.OutHeight(); ++y) {
      for (int64_t x = 0; x < shape.OutWidth(); ++x) {
        for (int64_t o = 0; o < shape.outputs; ++o) {
          double sum = 0;
          for (int64_t tap = 0; tap < 9; ++tap) {
            const int64_t row = y + tap / 3 - shape.top, column = x + tap % 3 - shape.left;
            if (row < 0 || row >= shape.height || column < 0 || column >= shape.width) continue;
            const int64_t pixel = (n * shape.height + row) * shape.width + column;
            for (int64_t c = 0; c < shape.channels; ++c) {
              sum += static_cast<double>(at(data.source, pixel * shape.channels + c)) *
                     at(data.weights, (o * shape.channels + c) * 9 + tap);
            }
          }
          sum *= at(data.scale, o);
          if (from.has_bias) sum += at(data.bias, o);
          if (from.has_residual) sum += at(data.residual, static_cast<int64_t>(sums.size()));
          sums.push_back(std::min<double>(std::max<double>(sum, from.low), from.high));
        }
      }
    }
  }
  return sums;
}

WinogradConvolution Make(const Case& from, const Data& data, int tile) {
  auto weights = std::make_shared<const WinogradWeights>(data.weights.data(), data.scale, from.shape.channels,
                                                         from.shape.outputs, tile);
  return WinogradConvolution(from.shape, std::move(weights), {data.bias, from.low, from.high});
}

void Compute(const WinogradConvolution& convolution, Data* data) {
  // What lies in the scratch memory must not matter.
  std::vector<float> scratch(convolution.ScratchBytes() / sizeof(float), std::nanf(""));
  convolution.Run(data->source.data(), data->residual.empty() ? nullptr : data->residual.data(),
                  data->destination.data(), scratch.data());
}

std::vector<Case> Cases() {
  return {
      {"OneTile", {1, 4, 4, 8, 8, 1, 1, 1, 1}},
      {"OnePixel", {1, 1, 1, 8, 8, 1, 1, 1, 1}},
      {"OddSides", {1, 7, 13, 16, 24, 1, 1, 1, 1}},
      {"NoPadding", {1, 9, 6, 8, 16, 0, 0, 0, 0}},
      {"SmallestWithoutPadding", {1, 3, 3, 8, 8, 0, 0, 0, 0}},
      {"PaddingOnOneSide", {1, 6, 11, 8, 8, 0, 1, 1, 0}},
      {"PaddingOnTheOtherSide", {1, 6, 11, 8, 8, 1, 0, 0, 1}},
      {"WidePadding", {1, 5, 5, 8, 8, 3, 2, 4, 5}},
      {"BatchOfThree", {3, 5, 10, 16, 8, 1, 1, 1, 1}},
      {"ManyBlocksOfTiles", {2, 23, 21, 128, 8, 1, 1, 1, 1}},
      {"OutputsThatFillNoPanel", {1, 6, 6, 24, 72, 1, 1, 1, 1}},
      {"Bias", {1, 6, 6, 8, 16, 1, 1, 1, 1}, true},
      {"Residual", {2, 7, 5, 8, 16, 1, 1, 1, 1}, false, true},
      {"BiasResidualReLU", {1, 9, 9, 16, 16, 1, 1, 1, 1}, true, true, 0},
      {"BiasResidualReLU6", {1, 9, 9, 32, 16, 1, 1, 1, 1}, true, true, 0, 6},
  };
}

class WinogradTest : public testing::TestWithParam<std::tuple<Case, int>> {
 protected:
  void SetUp() override {
    if (!HasWinograd()) GTEST_SKIP() << "this processor has no AVX2";
  }
};

TEST_P(WinogradTest, ComputesTheDirectSum) {
  const auto& [from, tile] = GetParam();
  ASSERT_TRUE(FitsWinograd(from.shape));
  Data data(from);
  Compute(Make(from, data, tile), &data);
  const std::vector<double> expected = DirectSums(from, data);
  ASSERT_EQ(data.destination.size(), expected.size());
  double largest = 1;
  for (const double value : expected) largest = std::max(largest, std::fabs(value));
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(data.destination[i], expected[i], (tile == 2 ? 2e-6 : 2e-5) * largest) << "at " << i;
  }
}

std::string NameOf(const testing::TestParamInfo<std::tuple<Case, int>>& info) {
  return std::get<0>(info.param).name + "TilesOf" + std::to_string(std::get<1>(info.param));
}

INSTANTIATE_TEST_SUITE_P(Shapes, WinogradTest, testing::Combine(testing::ValuesIn(Cases()), testing::Values(2, 4)),
                         NameOf);

TEST(WinogradShapeTest, OtherNumbersOfChannelsAndEmptyShapesDoNotFit) {
  const WinogradShape fits{1, 4, 4, 8, 8, 1, 1, 1, 1};
  EXPECT_TRUE(FitsWinograd(fits));
  EXPECT_FALSE(FitsWinograd({1, 4, 4, 12, 8, 1, 1, 1, 1}));
  EXPECT_FALSE(FitsWinograd({1, 4, 4, 8, 20, 1, 1, 1, 1}));
  EXPECT_FALSE(FitsWinograd({0, 4, 4, 8, 8, 1, 1, 1, 1}));
  EXPECT_FALSE(FitsWinograd({1, 4, 4, 0, 8, 1, 1, 1, 1}));
  EXPECT_FALSE(FitsWinograd({1, 2, 4, 8, 8, 0, 1, 0, 1})) << "no row of the output";
  EXPECT_FALSE(FitsWinograd({1, 4, 4, 8, 8, -1, 1, 1, 1}));
  WinogradShape other = fits;
  other.channels = 12;
  const std::vector<float> weights(8 * 12 * 9);
  const auto made = std::make_shared<const WinogradWeights>(weights.data(), std::vector<float>{}, 12, 8, 4);
  EXPECT_THROW(WinogradConvolution(other, made, {{}, -kInfinity, kInfinity}), std::invalid_argument);
  EXPECT_THROW(WinogradWeights(weights.data(), {}, 12, 8, 3), std::invalid_argument);
}

TEST(WinogradNumbersTest, NaNIsKeptByReLUAndWhatIsNotFiniteReachesNoOtherTile) {
  if (!HasWinograd()) GTEST_SKIP() << "this processor has no AVX2";
  const Case from{"", {2, 16, 16, 8, 8, 1, 1, 1, 1}, true, false, 0};
  for (const float odd : {std::nanf(""), kInfinity, -kInfinity}) {
    Data data(from);
    Compute(Make(from, data, 4), &data);
    const std::vector<float> before = data.destination;
    data.source[(5 * 16 + 5) * 8] = odd;  // in the middle of the second tile of the second row of tiles: 4 <= y, x < 8
    Compute(Make(from, data, 4), &data);
    int not_finite = 0;
    for (size_t i = 0; i < before.size(); ++i) {
      const size_t image = i / (16 * 16 * 8), y = i / (16 * 8) % 16, x = i / 8 % 16;
      // Tiles whose input, six pixels from one before their own first, has the pixel.
      const bool reads = image == 0 && y < 8 && x < 8 && y >= 4 && x >= 4;
      if (!reads) {
        EXPECT_EQ(data.destination[i], before[i]) << "at " << i;
      } else if (std::isnan(odd)) {
        EXPECT_TRUE(std::isnan(data.destination[i])) << "at " << i;
      } else if (!std::isfinite(data.destination[i])) {
        ++not_finite;
      }
    }
    EXPECT_TRUE(std::isnan(odd) || not_finite > 0);
  }
}

TEST(WinogradNumbersTest, TheResidualMayBeTheDestination) {
  if (!HasWinograd()) GTEST_SKIP() << "this processor has no AVX2";
  const Case from{"", {2, 7, 5, 8, 16, 1, 1, 1, 1}, true, true, 0};
  for (const int tile : {2, 4}) {
    Data data(from);
    const WinogradConvolution convolution = Make(from, data, tile);
    Compute(convolution, &data);
    std::vector<float> in_place = data.residual;
    std::vector<float> scratch(convolution.ScratchBytes() / sizeof(float));
    convolution.Run(data.source.data(), in_place.data(), in_place.data(), scratch.data());
    EXPECT_EQ(in_place, data.destination);
  }
}

TEST(WinogradNumbersTest, WeightsAreSharedByBatchSizes) {
  if (!HasWinograd()) GTEST_SKIP() << "this processor has no AVX2";
  const Case three{"", {3, 10, 10, 16, 16, 1, 1, 1, 1}};
  Data data(three);
  const auto weights = std::make_shared<const WinogradWeights>(data.weights.data(), data.scale, 16, 16, 4);
  Compute(WinogradConvolution(three.shape, weights, {{}, -kInfinity, kInfinity}), &data);
  const std::vector<float> of_three = data.destination;
  WinogradShape one = three.shape;
  one.batch = 1;
  std::fill(data.destination.begin(), data.destination.end(), 0.f);
  Compute(WinogradConvolution(one, weights, {{}, -kInfinity, kInfinity}), &data);
  const auto image = static_cast<std::ptrdiff_t>(of_three.size() / 3);
  EXPECT_TRUE(std::equal(of_three.begin(), of_three.begin() + image, data.destination.begin()));
  EXPECT_EQ(data.destination[static_cast<size_t>(image)], 0) << "written behind the only image";
}

}  // namespace
}  // namespace msserving::mindspore_session
