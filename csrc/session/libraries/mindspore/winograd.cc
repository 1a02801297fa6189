#include "session/libraries/mindspore/winograd.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <utility>

#include "session/libraries/mindspore/weight_memory.h"
#include "session/libraries/mindspore/winograd_kernels.h"

namespace msserving::mindspore_session {
namespace {

using winograd::kLane;
using winograd::kPadding;
using winograd::kPanel;
using winograd::kPanels;
using winograd::Positions;

// Transformed inputs of the tiles worked on at a time: they stay in the second-level cache.
constexpr int64_t kInputBytes = 512 << 10;
// Each block of tiles reads all weights, so that it must not be too small.
constexpr int64_t kFewestTiles = 24;

int64_t Divided(int64_t value, int64_t by) { return (value + by - 1) / by; }

// What a row of three weights is multiplied with to have a value for each point, see winograd_kernels.cc.
const std::vector<std::array<double, 3>>& WeightPoints(int tile) {
  static const std::vector<std::array<double, 3>> two{{1, 0, 0}, {.5, .5, .5}, {.5, -.5, .5}, {0, 0, 1}};
  static const std::vector<std::array<double, 3>> four{{1. / 4, 0, 0},
                                                       {-1. / 6, -1. / 6, -1. / 6},
                                                       {-1. / 6, 1. / 6, -1. / 6},
                                                       {1. / 24, 1. / 12, 1. / 6},
                                                       {1. / 24, -1. / 12, 1. / 6},
                                                       {0, 0, 1}};
  return tile == 2 ? two : four;
}

}  // namespace

bool HasWinograd() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

bool FitsWinograd(const WinogradShape& shape) {
  return shape.batch > 0 && shape.height > 0 && shape.width > 0 && shape.channels > 0 && shape.outputs > 0 &&
         shape.channels % kLane == 0 && shape.outputs % kLane == 0 && shape.top >= 0 && shape.left >= 0 &&
         shape.bottom >= 0 && shape.right >= 0 && shape.OutHeight() > 0 && shape.OutWidth() > 0;
}

// Order: kPanels panels of outputs, then positions, then single panels, then channels, then the panel's outputs.
// Outputs that fill the last panel up are zero.
WinogradWeights::WinogradWeights(const float* weights, const std::vector<float>& scale, int64_t channels,
                                 int64_t outputs, int tile)
    : tile_(tile) {
  if (tile != 2 && tile != 4) throw std::invalid_argument("Winograd: tiles are of 2 or 4 pixels");
  const auto& points = WeightPoints(tile);
  const auto side = static_cast<int64_t>(points.size());
  const int64_t positions = side * side;
  const int64_t panels = Divided(outputs, kPanel);
  floats_ = static_cast<size_t>(panels * kPanel * channels * positions);
  data_ = AllocateWeights(bytes());
  auto* const values = static_cast<float*>(data_.get());
  std::fill_n(values, floats_, 0.f);
  for (int64_t o = 0; o < outputs; ++o) {
    const double factor = scale.empty() ? 1 : scale[static_cast<size_t>(o)];
    const int64_t panel = o / kPanel;
    const int64_t group = panel / kPanels * kPanels;
    const int64_t in_group = std::min(kPanels, panels - group);
    float* first = values + group * positions * channels * kPanel + (panel - group) * channels * kPanel + o % kPanel;
    for (int64_t c = 0; c < channels; ++c) {
      const float* from = weights + (o * channels + c) * 9;
      for (int64_t y = 0; y < side; ++y) {
        const auto& down = points[static_cast<size_t>(y)];
        std::array<double, 3> row;
        for (int x = 0; x < 3; ++x) {
          row[x] = (down[0] * from[x] + down[1] * from[3 + x] + down[2] * from[6 + x]) * factor;
        }
        for (int64_t x = 0; x < side; ++x) {
          const auto& across = points[static_cast<size_t>(x)];
          const double value = across[0] * row[0] + across[1] * row[1] + across[2] * row[2];
          first[((y * side + x) * in_group * channels + c) * kPanel] = static_cast<float>(value);
        }
      }
    }
  }
}

WinogradConvolution::WinogradConvolution(const WinogradShape& shape, std::shared_ptr<const WinogradWeights> weights,
                                         WinogradEnd end)
    : shape_(shape), weights_(std::move(weights)), end_(std::move(end)) {
  if (!FitsWinograd(shape)) throw std::invalid_argument("Winograd: not for this shape");
  tiles_ = shape.batch * Divided(shape.OutHeight(), tile()) * Divided(shape.OutWidth(), tile());
  const int64_t bytes_each = Positions(tile()) * shape.channels * static_cast<int64_t>(sizeof(float));
  const int64_t blocks = Divided(tiles_, std::max(kInputBytes / bytes_each, kFewestTiles));
  at_a_time_ = Divided(tiles_, blocks);
}

size_t WinogradConvolution::ScratchBytes() const {
  const int64_t each = at_a_time_ * (shape_.channels + kPanels * kPanel) + 2 * kPadding;
  return static_cast<size_t>(Positions(tile()) * each + shape_.channels) * sizeof(float);
}

void WinogradConvolution::Run(const float* source, const float* residual, float* destination, float* scratch) const {
  const WinogradShape& shape = shape_;
  const int tile = weights_->tile();
  const int64_t side = tile + 2, positions = side * side;
  const int64_t out_height = shape.OutHeight(), out_width = shape.OutWidth();
  const int64_t down = Divided(out_height, tile), across = Divided(out_width, tile);
  const int64_t input_step = at_a_time_ * shape.channels + kPadding;
  const int64_t product_step = at_a_time_ * kPanels * kPanel + kPadding;
  float* const inputs = scratch;
  float* const products = inputs + positions * input_step;
  float* const zeros = products + positions * product_step;
  std::fill_n(zeros, shape.channels, 0.f);
  const int64_t panels = Divided(shape.outputs, kPanel);

  for (int64_t begin = 0; begin < tiles_; begin += at_a_time_) {
    const int64_t count = std::min(at_a_time_, tiles_ - begin);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t index = begin + i;
      const int64_t image = index / (down * across);
      const int64_t top = index / across % down * tile - shape.top, left = index % across * tile - shape.left;
      const float* pixels[36];
      for (int64_t y = 0; y < side; ++y) {
        for (int64_t x = 0; x < side; ++x) {
          const int64_t row = top + y, column = left + x;
          const bool inside = row >= 0 && row < shape.height && column >= 0 && column < shape.width;
          pixels[y * side + x] =
              inside ? source + ((image * shape.height + row) * shape.width + column) * shape.channels : zeros;
        }
      }
      winograd::TransformInput(tile, pixels, shape.channels, inputs + i * shape.channels, input_step);
    }
    for (int64_t group = 0; group < panels; group += kPanels) {
      const int64_t in_group = std::min(kPanels, panels - group);
      const float* panel = weights_->data() + group * positions * shape.channels * kPanel;
      for (int64_t p = 0; p < positions; ++p) {
        for (int64_t j = 0; j < in_group; ++j, panel += shape.channels * kPanel) {
          winograd::Multiply(inputs + p * input_step, count, shape.channels, panel,
                             products + p * product_step + j * kPanel, kPanels * kPanel);
        }
      }
      const int64_t first = group * kPanel;
      const int64_t outputs = std::min(in_group * kPanel, shape.outputs - first);
      winograd::TransformedBack back{};
      back.step = product_step;
      back.row_step = out_width * shape.outputs;
      back.pixel_step = shape.outputs;
      back.low = end_.low;
      back.high = end_.high;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t index = begin + i;
        const int64_t image = index / (down * across);
        const int64_t top = index / across % down * tile, left = index % across * tile;
        back.rows = std::min<int64_t>(tile, out_height - top);
        back.columns = std::min<int64_t>(tile, out_width - left);
        const int64_t at = ((image * out_height + top) * out_width + left) * shape.outputs + first;
        for (int64_t o = 0; o < outputs; o += kLane) {
          back.from = products + i * kPanels * kPanel + o;
          back.bias = end_.bias.empty() ? nullptr : end_.bias.data() + first + o;
          back.residual = residual == nullptr ? nullptr : residual + at + o;
          back.to = destination + at + o;
          winograd::TransformBack(tile, back);
        }
      }
    }
  }
}

}  // namespace msserving::mindspore_session
