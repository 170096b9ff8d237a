// The contract's reduction of one row: 8 shards, chunks of 64, a chain in each chunk, shards joined in a tree.
#pragma once

#include "contract.h"

namespace layercast::LAYERCAST_ISA {
namespace {

// Shard sums joined: ((s0+s1)+(s2+s3)) + ((s4+s5)+(s6+s7)).
LAYERCAST_INLINE float join_shards(const float* s) {
  return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

// Chunks in ascending order, kLanes at a time, a lane each: chains of different chunks do not depend on one another.
struct ChunkGroup {
  int64_t start[kLanes];
  int length[kLanes];
  int shard[kLanes];
  int count = 0;
};

// Where a lane's chunk can be read kChunk elements far: in place if it is whole, else in a copy with +0 past its end.
LAYERCAST_INLINE const float* whole_chunk(const float* x, int length, float (&copy)[kChunk]) {
  if (length == kChunk) return x;
#pragma GCC unroll 4
  for (int i = 0; i < kChunk; i += kLanes) {
    const int left = length - i;
    store(copy + i, load(x + i, SomeLanes{left < 0 ? 0 : left < kLanes ? left : kLanes}));
  }
  return copy;
}

// A chain per lane: sum over k < steps of x[lane][k] * w[lane][k], or of x[lane][k] where w is null.
LAYERCAST_INLINE F32 chunk_chains(const float* const (&x)[kLanes], const float* const* w, int steps) {
  F32 acc = splat(0.0f);
  for (int k = 0; k < steps; k += kLanes) {
    U32 a[kLanes], b[kLanes];
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes; ++lane) a[lane] = load_words(x[lane] + k);
    transpose(a);
    if (w == nullptr) {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) acc = acc + bitcast<F32>(a[i]);  // fma(x, 1, acc)
    } else if (w == x) {
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) acc = fma(bitcast<F32>(a[i]), bitcast<F32>(a[i]), acc);
    } else {
#pragma GCC unroll 16
      for (int lane = 0; lane < kLanes; ++lane) b[lane] = load_words(w[lane] + k);
      transpose(b);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) acc = fma(bitcast<F32>(a[i]), bitcast<F32>(b[i]), acc);
    }
  }
  return acc;
}

// Adds the group's chunk sums to their shards, in order. A lane past its chunk's end adds +0 * +0, which can only turn
// a chunk sum of -0 into +0, and a shard sum, starting at +0, does not tell those apart.
LAYERCAST_INLINE void add_chunks(ChunkGroup& group, const float* x, const float* w, float* shards) {
  float copies_x[kLanes][kChunk], copies_w[kLanes][kChunk];
  const float* rows_x[kLanes];
  const float* rows_w[kLanes];
  int longest = 0;
  for (int lane = 0; lane < kLanes; ++lane) {
    const int length = lane < group.count ? group.length[lane] : 0;
    const int64_t start = lane < group.count ? group.start[lane] : 0;
    longest = length > longest ? length : longest;
    rows_x[lane] = whole_chunk(x + start, length, copies_x[lane]);
    if (w != nullptr && w != x) rows_w[lane] = whole_chunk(w + start, length, copies_w[lane]);
  }
  const F32 acc = chunk_chains(rows_x, w == nullptr ? nullptr : w == x ? rows_x : rows_w, longest);
  float sums[kLanes];
  store(sums, acc);
  for (int lane = 0; lane < group.count; ++lane) shards[group.shard[lane]] += sums[lane];
  group.count = 0;
}

// The sums of shards [first, last) of 0..n, each into shards[shard], which the caller has set to +0. w == nullptr
// stands for ones. `ready(begin, end)` is called before elements [begin, end) are read, in ascending order.
template <class Function>
LAYERCAST_INLINE void add_shards(const float* x, const float* w, int64_t n, int first, int last, float* shards,
                                 Function ready) {
  ChunkGroup group;
  int64_t seen = shard_begin(n, first);
  for (int shard = first; shard < last; ++shard) {
    const int64_t end = shard_begin(n, shard + 1);
    for (int64_t start = shard_begin(n, shard); start < end; start += kChunk) {
      const int length = static_cast<int>(end - start < kChunk ? end - start : kChunk);
      group.start[group.count] = start;
      group.length[group.count] = length;
      group.shard[group.count] = shard;
      if (++group.count == kLanes) {
        ready(seen, start + length);
        seen = start + length;
        add_chunks(group, x, w, shards);
      }
    }
  }
  if (group.count > 0) {
    ready(seen, shard_begin(n, last));
    add_chunks(group, x, w, shards);
  }
}

// sum of x[k] * w[k] over 0..n in the contracted order; w == nullptr stands for ones.
inline float dot(const float* x, const float* w, int64_t n) {
  float shards[kShards] = {};
  add_shards(x, w, n, 0, kShards, shards, [](int64_t, int64_t) {});
  return join_shards(shards);
}

}  // namespace
}  // namespace layercast::LAYERCAST_ISA
