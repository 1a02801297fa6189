// The loops of winograd.h that are written for AVX2 and FMA. Only for a processor that has both.
#pragma once

#include <cstddef>
#include <cstdint>

namespace msserving::mindspore_session::winograd {

constexpr int64_t kLane = 8;      // floats of a register
constexpr int64_t kPanel = 16;    // outputs that a multiplication computes at a time
constexpr int64_t kPanels = 2;    // panels whose products are kept before they are transformed back
constexpr int64_t kPadding = 16;  // floats between positions, so that they do not fall into the same cache sets

constexpr int64_t Positions(int tile) { return (tile + 2) * (tile + 2); }

// One tile, `channels` (a multiple of 8) at a time: pixels[y * (tile + 2) + x] points at the channels of a pixel of its
// input. Position p of the result goes to to[p * step].
void TransformInput(int tile, const float* const* pixels, int64_t channels, float* to, int64_t step);

// products[row * product_step + c] = sum over k of rows[row * depth + k] * panel[k * kPanel + c], for kPanel values of
// c.
void Multiply(const float* rows, int64_t row_count, int64_t depth, const float* panel, float* products,
              int64_t product_step);

// One tile of 8 outputs: position p comes from from[p * step]; rows x columns pixels are stored.
struct TransformedBack {
  const float* from;
  int64_t step;
  const float* bias;      // null: none
  const float* residual;  // null: none; else like `to`
  float* to;              // the tile's first pixel
  int64_t row_step, pixel_step;
  int64_t rows, columns;  // up to the tile's size
  float low, high;
};
void TransformBack(int tile, const TransformedBack& tile_of);

// So that the next read comes from memory.
void Evict(const void* data, size_t bytes);

}  // namespace msserving::mindspore_session::winograd
