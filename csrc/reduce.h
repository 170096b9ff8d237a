// The contract's reduction of one row: 8 shards, chunks of 64, a chain in each chunk, shards joined in a tree.
#pragma once

#include "contract.h"

namespace layercast::LAYERCAST_ISA {
namespace {

// Shard sums joined: ((s0+s1)+(s2+s3)) + ((s4+s5)+(s6+s7)).
LAYERCAST_INLINE float join_shards(const float (&s)[kShards]) {
  return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

// Chunks in ascending order, kLanes at a time, a lane each: chains of different chunks do not depend on one another.
struct ChunkGroup {
  int64_t start[kLanes];
  int32_t length[kLanes];
  int32_t shard[kLanes];
  int count;
};

// sum of x[k] * w[k] over 0..length in the contracted order; w == nullptr stands for ones.
inline float dot(const float* x, const float* w, int64_t length) {
  float shards[kShards] = {};
  ChunkGroup group;
  group.count = 0;
  const auto flush = [&] {
    F32 acc = splat(0.0f);
    alignas(64) int32_t offsets[kLanes];
    int longest = 0;
    bool whole = group.count == kLanes;
    for (int lane = 0; lane < kLanes; ++lane) {
      const bool used = lane < group.count;
      offsets[lane] = used ? static_cast<int32_t>(group.start[lane] - group.start[0]) : 0;
      if (!used) group.length[lane] = 0;
      longest = group.length[lane] > longest ? group.length[lane] : longest;
      whole = whole && group.length[lane] == kChunk;
    }
    I32 index, lengths;
    memcpy(&index, offsets, sizeof index);
    memcpy(&lengths, group.length, sizeof lengths);
    const float* x_base = x + group.start[0];
    const float* w_base = w == nullptr ? nullptr : w + group.start[0];
    for (int k = 0; k < longest; ++k) {
      // A lane past its chunk's end reads its first element instead and adds +0 * +0, which changes no shard sum.
      const auto inside = lengths > k;
      const I32 where = index + (inside ? index * 0 + k : index * 0);
      F32 a = gather(x_base, where);
      F32 b = w_base == nullptr ? splat(1.0f) : gather(w_base, where);
      if (!whole) {
        a = inside ? a : splat(0.0f);
        b = inside ? b : splat(0.0f);
      }
      acc = fma(a, b, acc);
    }
    float sums[kLanes];
    store(sums, acc);
    for (int lane = 0; lane < group.count; ++lane) shards[group.shard[lane]] += sums[lane];
    group.count = 0;
  };
  for (int shard = 0; shard < kShards; ++shard) {
    const int64_t end = shard_begin(length, shard + 1);
    for (int64_t start = shard_begin(length, shard); start < end; start += kChunk) {
      group.start[group.count] = start;
      group.length[group.count] = static_cast<int32_t>(end - start < kChunk ? end - start : kChunk);
      group.shard[group.count] = shard;
      if (++group.count == kLanes) flush();
    }
  }
  if (group.count > 0) flush();
  return join_shards(shards);
}

}  // namespace
}  // namespace layercast::LAYERCAST_ISA
