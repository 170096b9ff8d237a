// The contract's reduction of one row: 8 shards, chunks of 64, a chain in each chunk, shards joined in a tree.
#pragma once

#include "contract.h"
#include "storage.h"

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
  int count = 0;
};

// packed[k * kLanes + lane] = element k of the lane's chunk of x, +0 past its end.
inline void pack_chunks(const ChunkGroup& group, const float* x, int64_t n, int longest, bool whole, float* packed) {
  Rows rows;
  for (int lane = 0; lane < kLanes; ++lane) {
    rows.first[lane] = reinterpret_cast<const char*>(x + group.start[lane < group.count ? lane : 0]);
  }
  rows.end = reinterpret_cast<const char*>(x + n);
  rows.measure();
  pack_rows<Storage::kFloat32>(rows, longest, packed, kLanes);
  if (whole) return;
  I32 lengths;
  memcpy(&lengths, group.length, sizeof lengths);
  for (int k = 0; k < longest; ++k) {
    const F32 value = load(packed + k * kLanes);
    store(packed + k * kLanes, lengths > k ? value : splat(0.0f));
  }
}

// Adds the group's chunk sums to their shards, in order. A lane past its chunk's end adds +0 * +0, which can only turn
// a chunk sum of -0 into +0, and a shard sum, starting at +0, does not tell those apart.
inline void add_chunks(ChunkGroup& group, const float* x, const float* w, int64_t n, float (&shards)[kShards]) {
  alignas(64) float packed_x[kChunk * kLanes], packed_w[kChunk * kLanes];
  int longest = 0;
  bool whole = group.count == kLanes;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (lane >= group.count) group.length[lane] = 0;
    longest = group.length[lane] > longest ? group.length[lane] : longest;
    whole = whole && group.length[lane] == kChunk;
  }
  pack_chunks(group, x, n, longest, whole, packed_x);
  if (w != nullptr && w != x) pack_chunks(group, w, n, longest, whole, packed_w);
  F32 acc = splat(0.0f);
  for (int k = 0; k < longest; ++k) {
    const F32 a = load(packed_x + k * kLanes);
    if (w == nullptr) {
      acc = acc + a;  // fma(a, 1, acc)
    } else {
      acc = fma(a, w == x ? a : load(packed_w + k * kLanes), acc);
    }
  }
  float sums[kLanes];
  store(sums, acc);
  for (int lane = 0; lane < group.count; ++lane) shards[group.shard[lane]] += sums[lane];
  group.count = 0;
}

// sum of x[k] * w[k] over 0..n in the contracted order; w == nullptr stands for ones.
inline float dot(const float* x, const float* w, int64_t n) {
  float shards[kShards] = {};
  ChunkGroup group;
  for (int shard = 0; shard < kShards; ++shard) {
    const int64_t end = shard_begin(n, shard + 1);
    for (int64_t start = shard_begin(n, shard); start < end; start += kChunk) {
      group.start[group.count] = start;
      group.length[group.count] = static_cast<int32_t>(end - start < kChunk ? end - start : kChunk);
      group.shard[group.count] = shard;
      if (++group.count == kLanes) add_chunks(group, x, w, n, shards);
    }
  }
  if (group.count > 0) add_chunks(group, x, w, n, shards);
  return join_shards(shards);
}

}  // namespace
}  // namespace layercast::LAYERCAST_ISA
