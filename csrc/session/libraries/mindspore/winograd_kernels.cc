#include "session/libraries/mindspore/winograd_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

// Functions of this file alone are compiled for AVX2: the rest of the library runs on any processor.
#define MSSERVING_AVX2 __attribute__((target("avx2,fma")))
#define MSSERVING_AVX2_INLINE MSSERVING_AVX2 __attribute__((always_inline)) static inline

namespace msserving::mindspore_session::winograd {
namespace {

using Lane = __m256;

// One dimension of the transforms. The points are 0, 1, -1 (tiles of 2), also 2, -2 (tiles of 4), and infinity.
template <int kTile>
struct Line;

template <>
struct Line<2> {
  MSSERVING_AVX2_INLINE void In(const Lane* from, Lane* to, int step) {
    to[0] = _mm256_sub_ps(from[0], from[2]);
    to[step] = _mm256_add_ps(from[1], from[2]);
    to[2 * step] = _mm256_sub_ps(from[2], from[1]);
    to[3 * step] = _mm256_sub_ps(from[1], from[3]);
  }
  MSSERVING_AVX2_INLINE void Out(const Lane* from, Lane* to, int step) {
    to[0] = _mm256_add_ps(_mm256_add_ps(from[0], from[1]), from[2]);
    to[step] = _mm256_sub_ps(_mm256_sub_ps(from[1], from[2]), from[3]);
  }
};

template <>
struct Line<4> {
  MSSERVING_AVX2_INLINE void In(const Lane* from, Lane* to, int step) {
    const Lane four = _mm256_set1_ps(4), five = _mm256_set1_ps(5), two = _mm256_set1_ps(2);
    const Lane a = _mm256_fnmadd_ps(four, from[2], from[4]);
    const Lane b = _mm256_fnmadd_ps(four, from[1], from[3]);
    const Lane c = _mm256_sub_ps(from[4], from[2]);
    const Lane d = _mm256_sub_ps(from[3], from[1]);
    to[0] = _mm256_fmadd_ps(four, from[0], _mm256_fnmadd_ps(five, from[2], from[4]));
    to[step] = _mm256_add_ps(a, b);
    to[2 * step] = _mm256_sub_ps(a, b);
    to[3 * step] = _mm256_fmadd_ps(two, d, c);
    to[4 * step] = _mm256_fnmadd_ps(two, d, c);
    to[5 * step] = _mm256_fmadd_ps(four, from[1], _mm256_fnmadd_ps(five, from[3], from[5]));
  }
  MSSERVING_AVX2_INLINE void Out(const Lane* from, Lane* to, int step) {
    const Lane a = _mm256_add_ps(from[1], from[2]), b = _mm256_sub_ps(from[1], from[2]);
    const Lane c = _mm256_add_ps(from[3], from[4]), d = _mm256_sub_ps(from[3], from[4]);
    to[0] = _mm256_add_ps(_mm256_add_ps(from[0], a), c);
    to[step] = _mm256_fmadd_ps(_mm256_set1_ps(2), d, b);
    to[2 * step] = _mm256_fmadd_ps(_mm256_set1_ps(4), c, a);
    to[3 * step] = _mm256_add_ps(_mm256_fmadd_ps(_mm256_set1_ps(8), d, b), from[5]);
  }
};

template <int kTile>
MSSERVING_AVX2 void In(const float* const* pixels, int64_t channels, float* to, int64_t step) {
  constexpr int kSide = kTile + 2;
  for (int64_t c = 0; c < channels; c += kLane) {
    Lane half[kSide * kSide];  // columns transformed, each a row here
    for (int x = 0; x < kSide; ++x) {
      Lane column[kSide];
      for (int y = 0; y < kSide; ++y) column[y] = _mm256_loadu_ps(pixels[y * kSide + x] + c);
      Line<kTile>::In(column, half + x, kSide);
    }
    for (int y = 0; y < kSide; ++y) {
      Lane row[kSide];
      Line<kTile>::In(half + y * kSide, row, 1);
      for (int x = 0; x < kSide; ++x) _mm256_storeu_ps(to + (y * kSide + x) * step + c, row[x]);
    }
  }
}

template <int kTile>
MSSERVING_AVX2 void Back(const TransformedBack& tile) {
  constexpr int kSide = kTile + 2;
  Lane half[kTile * kSide];
  for (int x = 0; x < kSide; ++x) {
    Lane column[kSide];
    for (int y = 0; y < kSide; ++y) column[y] = _mm256_loadu_ps(tile.from + (y * kSide + x) * tile.step);
    Line<kTile>::Out(column, half + x, kSide);
  }
  const Lane bias = tile.bias == nullptr ? _mm256_setzero_ps() : _mm256_loadu_ps(tile.bias);
  const Lane low = _mm256_set1_ps(tile.low), high = _mm256_set1_ps(tile.high);
  for (int64_t y = 0; y < tile.rows; ++y) {
    Lane row[kTile];
    Line<kTile>::Out(half + y * kSide, row, 1);
    for (int64_t x = 0; x < tile.columns; ++x) {
      const int64_t at = y * tile.row_step + x * tile.pixel_step;
      Lane sum = _mm256_add_ps(row[x], bias);
      if (tile.residual != nullptr) sum = _mm256_add_ps(sum, _mm256_loadu_ps(tile.residual + at));
      // The second operand is what comes out if either is NaN.
      _mm256_storeu_ps(tile.to + at, _mm256_min_ps(high, _mm256_max_ps(low, sum)));
    }
  }
}

constexpr int64_t kAhead = 2048;  // floats

// kRows x 16 sums stay in registers.
template <int kRows>
MSSERVING_AVX2 void MultiplyRows(const float* rows, int64_t depth, const float* panel, float* products,
                                 int64_t product_step) {
  Lane left[kRows], right[kRows];
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) left[r] = right[r] = _mm256_setzero_ps();
  for (int64_t k = 0; k < depth; ++k) {
    // Panels lie one behind the other, and large ones come from memory.
    _mm_prefetch(reinterpret_cast<const char*>(panel + k * kPanel + kAhead), _MM_HINT_T0);
    const Lane a = _mm256_loadu_ps(panel + k * kPanel), b = _mm256_loadu_ps(panel + k * kPanel + kLane);
#pragma GCC unroll 6
    for (int r = 0; r < kRows; ++r) {
      const Lane value = _mm256_broadcast_ss(rows + r * depth + k);
      left[r] = _mm256_fmadd_ps(value, a, left[r]);
      right[r] = _mm256_fmadd_ps(value, b, right[r]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < kRows; ++r) {
    _mm256_storeu_ps(products + r * product_step, left[r]);
    _mm256_storeu_ps(products + r * product_step + kLane, right[r]);
  }
}

}  // namespace

void TransformInput(int tile, const float* const* pixels, int64_t channels, float* to, int64_t step) {
  if (tile == 2) {
    In<2>(pixels, channels, to, step);
  } else {
    In<4>(pixels, channels, to, step);
  }
}

void TransformBack(int tile, const TransformedBack& tile_of) {
  if (tile == 2) {
    Back<2>(tile_of);
  } else {
    Back<4>(tile_of);
  }
}

void Multiply(const float* rows, int64_t row_count, int64_t depth, const float* panel, float* products,
              int64_t product_step) {
  constexpr int64_t kMostRows = 6;
  using Function = void (*)(const float*, int64_t, const float*, float*, int64_t);
  static constexpr Function kFunctions[kMostRows] = {MultiplyRows<1>, MultiplyRows<2>, MultiplyRows<3>,
                                                     MultiplyRows<4>, MultiplyRows<5>, MultiplyRows<6>};
  // Blocks as equal as can be: few rows at a time wait for the sums before them.
  for (int64_t blocks = (row_count + kMostRows - 1) / kMostRows; blocks > 0; --blocks) {
    const int64_t count = (row_count + blocks - 1) / blocks;
    kFunctions[count - 1](rows, depth, panel, products, product_step);
    rows += count * depth;
    products += count * product_step;
    row_count -= count;
  }
}

void Evict(const void* data, size_t bytes) {
  constexpr size_t kLine = 64;
  const auto* at = static_cast<const char*>(data);
  for (size_t offset = 0; offset < bytes; offset += kLine) _mm_clflush(at + offset);
  _mm_mfence();
}

}  // namespace msserving::mindspore_session::winograd
#else
#include <cstdlib>

namespace msserving::mindspore_session::winograd {

// HasWinograd() is false here, so nothing calls these.
void TransformInput(int, const float* const*, int64_t, float*, int64_t) { std::abort(); }
void TransformBack(int, const TransformedBack&) { std::abort(); }
void Multiply(const float*, int64_t, int64_t, const float*, float*, int64_t) { std::abort(); }
void Evict(const void*, size_t) { std::abort(); }

}  // namespace msserving::mindspore_session::winograd
#endif
