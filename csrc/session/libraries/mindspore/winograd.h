// 3x3 convolutions with fewer multiplications than a direct sum has: Winograd's method, in AVX2. Knows nothing of
// MindSpore and of oneDNN.
//
// The output is cut into tiles of 2x2 or 4x4 pixels. A tile's input (4x4 or 6x6 pixels) is transformed, multiplied with
// the transformed weights, position by position, and transformed back: 16 or 36 multiplications for each pair of
// channels instead of 36 or 144. Tiles that reach over the edge cost as much as whole ones.
//
// The result is the direct sum's but for rounding: about 1e-6 of the largest value for tiles of 2, 1e-5 for tiles of 4.
// Sums and differences of neighbouring pixels are formed on the way, so an infinity or a NaN in the input may make NaNs
// of all pixels of the tiles that read it, where a direct sum has it in those pixels alone that it reaches; other tiles
// are not touched. Finite values above 1e36 may overflow. A clamp keeps a NaN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace msserving::mindspore_session {

// Of float32 tensors in NHWC order (channels of a pixel side by side), dense. Strides and dilations are 1, the kernel
// is 3x3 and there is one group.
struct WinogradShape {
  int64_t batch = 0, height = 0, width = 0, channels = 0;  // of the source
  int64_t outputs = 0;                                     // channels of the destination
  int64_t top = 0, left = 0, bottom = 0, right = 0;        // zeros around the source

  int64_t OutHeight() const { return height + top + bottom - 2; }
  int64_t OutWidth() const { return width + left + right - 2; }
};

// The processor has AVX2 and FMA. Without them nothing below may be made.
bool HasWinograd();

// No dimension is empty and both numbers of channels are multiples of 8.
bool FitsWinograd(const WinogradShape& shape);

// Weights in the form that tiles of this size need. Immutable; any number of convolutions may share them.
class WinogradWeights {
 public:
  // `weights` in the order [outputs, channels, 3, 3]. `scale`: a factor for each output; empty: none. `tile` is 2 or 4.
  WinogradWeights(const float* weights, const std::vector<float>& scale, int64_t channels, int64_t outputs, int tile);

  int tile() const { return tile_; }
  const float* data() const { return static_cast<const float*>(data_.get()); }
  size_t bytes() const { return floats_ * sizeof(float); }

 private:
  const int tile_;
  size_t floats_;
  std::shared_ptr<void> data_;
};

// What is done to the sums before they are stored: a bias, a residual (see Run), and a clamp to [low, high].
struct WinogradEnd {
  std::vector<float> bias;  // one an output; empty: none
  float low, high;          // infinities: no clamp
};

// One convolution. Immutable, so that any number of threads may run it, each with scratch memory of its own.
class WinogradConvolution {
 public:
  // The shape fits, and `weights` were made for its channels and outputs.
  WinogradConvolution(const WinogradShape& shape, std::shared_ptr<const WinogradWeights> weights, WinogradEnd end);

  int tile() const { return weights_->tile(); }
  const WinogradWeights& weights() const { return *weights_; }
  size_t ScratchBytes() const;

  // In the calling thread, without allocating. All pointers are at least 4-byte aligned. `residual` has the
  // destination's shape, may be the destination itself, and is null for none; `source` and `scratch` overlap nothing
  // else.
  void Run(const float* source, const float* residual, float* destination, float* scratch) const;

 private:
  const WinogradShape shape_;
  const std::shared_ptr<const WinogradWeights> weights_;
  WinogradEnd end_;
  int64_t tiles_;      // of all images
  int64_t at_a_time_;  // tiles
};

}  // namespace msserving::mindspore_session
