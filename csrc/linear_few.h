// `linear` for a few rows of x: the products follow at once, while the weights pass by, read once.
#pragma once

#include "linear_sums.h"
#include "tile.h"
#include "weight_columns.h"

namespace layercast::LAYERCAST_ISA {
namespace {

// So many that their chains and a block of weights being transposed fit the registers, or nearly.
constexpr int kFewRows = kLanes >= 8 ? 8 : 4;

// Vectors of columns side by side: the steps of a chain wait for each other, and where vectors are short, the chains of
// a row or two are slower than memory.
template <int kRows>
constexpr int kVectorsOf = (kLanes == 4 || kLanes == 8) && kRows <= 2 ? 2 : 1;

// Sums of the chunk of `count` k from `k` on, for kRows rows of x.
template <int kRows, int kVectors, class Columns>
LAYERCAST_INLINE void few_chains(const LinearArgs& args, const Columns (&columns)[kVectors], int64_t k, int count,
                                 F32 (&sums)[kVectors * kRows]) {
#pragma GCC unroll 16
  for (F32& sum : sums) sum = splat(0.0f);
  const auto steps = [&](int done, int limit) __attribute__((always_inline)) {
    const float* x = args.x + k + done;
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      columns[j].each(k + done, limit, [&](int i, F32 weights) __attribute__((always_inline)) {
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          F32& sum = sums[j * kRows + r];
          sum = fma(splat(x[r * args.ldx + i]), weights, sum);
        }
      });
    }
  };
  int done = 0;
  for (; done + Columns::kSteps <= count; done += Columns::kSteps) steps(done, Columns::kSteps);
  if (done < count) steps(done, count - done);
}

// kVectors * kLanes columns of y, the last vector's as many as there are.
template <int kRows, int kVectors, class Columns>
__attribute__((noinline)) void few_rows(const LinearArgs& args, int64_t column) {
  constexpr int kSums = kVectors * kRows;
  Columns columns[kVectors];
  for (int j = 0; j < kVectors; ++j) columns[j] = Columns(args, column + j * kLanes, kVectors);
  F32 waiting[kLevels][kSums], shard[kSums];
  for (int s = 0; s < args.shards; ++s) {
    for (F32& sum : shard) sum = splat(0.0f);
    const int64_t end = shard_bound(args, s + 1);
    for (int64_t k = shard_bound(args, s); k < end; k += kChunk) {
      F32 sums[kSums];
      few_chains<kRows, kVectors>(args, columns, k, static_cast<int>(end - k < kChunk ? end - k : kChunk), sums);
#pragma GCC unroll 16
      for (int i = 0; i < kSums; ++i) shard[i] = shard[i] + sums[i];
    }
    // Shards joined as a binary counter carries: each odd bit of s closes a subtree.
    int level = 0;
    for (; (s >> level) & 1; ++level) {
      for (int i = 0; i < kSums; ++i) shard[i] = waiting[level][i] + shard[i];
    }
    for (int i = 0; level < kLevels && i < kSums; ++i) waiting[level][i] = shard[i];
  }
  for (int i = 0; i < kSums; ++i) {
    const int64_t first = column + i / kRows * kLanes;
    float sums[kLanes];
    store(sums, shard[i]);
    write_row(args, i % kRows, first, args.N - first < kLanes ? args.N - first : kLanes, sums);
  }
}

// Rows [row, row + rows) of x against the columns of [begin, end), kLanes each; rows at most kFewRows.
template <class Columns>
void linear_few(const LinearArgs& args, int64_t row, int64_t rows, int64_t begin, int64_t end) {
  LinearArgs part = args;
  part.x += row * args.ldx;
  part.y += row * args.N;
  with_rows<kFewRows>(static_cast<int>(rows), [&]<int kRows>() {
    int64_t column = begin;
    for (; end - column > (kVectorsOf<kRows> - 1) * kLanes; column += kVectorsOf<kRows> * kLanes) {
      few_rows<kRows, kVectorsOf<kRows>, Columns>(part, column);
    }
    for (; column < end; column += kLanes) few_rows<kRows, 1, Columns>(part, column);
  });
}

}  // namespace
}  // namespace layercast::LAYERCAST_ISA
