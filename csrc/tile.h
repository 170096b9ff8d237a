// The register tile of the matrix kernels: a few rows of x against a few vectors of columns, every chain along k.
#pragma once

#include "contract.h"

namespace layercast::LAYERCAST_ISA {
namespace {

// Columns and rows held in registers: rows * vectors accumulators and `vectors` weights must fit the register file.
#if LAYERCAST_LANES == 16
constexpr int kTileRows = 9, kTileVectors = 3;
#elif LAYERCAST_LANES == 8
constexpr int kTileRows = 6, kTileVectors = 2;
#elif LAYERCAST_LANES == 4
constexpr int kTileRows = 6, kTileVectors = 4;
#else
constexpr int kTileRows = 4, kTileVectors = 4;
#endif
constexpr int kTileColumns = kTileVectors * kLanes;

// Rows (query, query head) of attention that share each block's transposed keys.
constexpr int kQueryRows = 96;

// Nothing to be done with each step.
struct NoStep {
  LAYERCAST_INLINE void operator()(int) const {}
};

// kRows chains of `count` steps each, from +0: chains[i][j] = sum over k of x[i][k] * w[k][j]. With each step comes
// step(k), which may ask for what will be needed next.
template <int kRows, int kVectors, class Step = NoStep>
LAYERCAST_INLINE void chains(const float* x, int64_t ldx, const float* w, int64_t pitch, int count,
                             F32 (&sums)[kRows][kVectors], const Step& step = {}) {
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; ++j) sums[i][j] = splat(0.0f);
  }
  for (int k = 0; k < count; ++k) {
    step(k);
    F32 columns[kVectors];
#pragma GCC unroll 16
    for (int j = 0; j < kVectors; ++j) columns[j] = load(w + k * pitch + j * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const F32 value = splat(x[i * ldx + k]);
#pragma GCC unroll 16
      for (int j = 0; j < kVectors; ++j) sums[i][j] = fma(value, columns[j], sums[i][j]);
    }
  }
}

// Calls f.template operator()<rows>() for a number of rows known only at run time, 1 <= rows <= kRows.
template <int kRows, class Function>
LAYERCAST_INLINE void with_rows(int rows, Function&& f) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return with_rows<kRows - 1>(rows, f);
  }
  f.template operator()<kRows>();
}

}  // namespace
}  // namespace layercast::LAYERCAST_ISA
