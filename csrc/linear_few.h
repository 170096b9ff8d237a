// `linear` for a few rows of x: the products follow at once, while the weights pass by, read once.
#pragma once

#include "linear_sums.h"
#include "tile.h"
#include "weight_columns.h"

namespace layercast::LAYERCAST_ISA {
namespace {

// Their chains and a block of weights being transposed fit the registers.
constexpr int kFewRows = kLanes == 16 ? 8 : 4;

// Sums of the chunk of `count` k from `k` on, for kRows rows of x.
template <int kRows, class Columns>
LAYERCAST_INLINE void few_chains(const LinearArgs& args, const Columns& columns, int64_t k, int count,
                                 F32 (&sums)[kRows]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) sums[r] = splat(0.0f);
  const auto steps = [&](int done, int limit) __attribute__((always_inline)) {
    const float* x = args.x + k + done;
    columns.each(k + done, limit, [&](int i, F32 weights) __attribute__((always_inline)) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) sums[r] = fma(splat(x[r * args.ldx + i]), weights, sums[r]);
    });
  };
  int done = 0;
  for (; done + Columns::kSteps <= count; done += Columns::kSteps) steps(done, Columns::kSteps);
  if (done < count) steps(done, count - done);
}

// kLanes columns of y.
template <int kRows, class Columns>
__attribute__((noinline)) void few_rows(const LinearArgs& args, int64_t column) {
  const Columns columns(args, column);
  F32 waiting[kLevels][kRows], shard[kRows];
  for (int s = 0; s < args.shards; ++s) {
    for (int r = 0; r < kRows; ++r) shard[r] = splat(0.0f);
    const int64_t end = shard_bound(args, s + 1);
    for (int64_t k = shard_bound(args, s); k < end; k += kChunk) {
      F32 sums[kRows];
      few_chains<kRows>(args, columns, k, static_cast<int>(end - k < kChunk ? end - k : kChunk), sums);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) shard[r] = shard[r] + sums[r];
    }
    // Shards joined as a binary counter carries: each odd bit of s closes a subtree.
    int level = 0;
    for (; (s >> level) & 1; ++level) {
      for (int r = 0; r < kRows; ++r) shard[r] = waiting[level][r] + shard[r];
    }
    for (int r = 0; level < kLevels && r < kRows; ++r) waiting[level][r] = shard[r];
  }
  for (int r = 0; r < kRows; ++r) {
    float sums[kLanes];
    store(sums, shard[r]);
    write_row(args, r, column, args.N - column < kLanes ? args.N - column : kLanes, sums);
  }
}

// Rows [row, row + rows) of x against the columns of [begin, end), kLanes each; rows at most kFewRows.
template <class Columns>
void linear_few(const LinearArgs& args, int64_t row, int64_t rows, int64_t begin, int64_t end) {
  LinearArgs part = args;
  part.x += row * args.ldx;
  part.y += row * args.N;
  with_rows<kFewRows>(static_cast<int>(rows), [&]<int kRows>() {
    for (int64_t column = begin; column < end; column += kLanes) few_rows<kRows, Columns>(part, column);
  });
}

}  // namespace
}  // namespace layercast::LAYERCAST_ISA
