// What both ways through `linear` share: where the shards lie, and how a finished sum becomes y.
#pragma once

#include "contract.h"
#include "kernels.h"
#include "storage.h"

namespace layercast::LAYERCAST_ISA {
namespace {

constexpr int kLevels = 3;  // log2(kShards): sums waiting in the tree that joins the shards

// Where shard `s` of these begins, counted from the first: a rank's part of K has the cuts of the whole.
LAYERCAST_INLINE int64_t shard_bound(const LinearArgs& args, int s) {
  return shard_begin(args.features, args.first_shard + s) - shard_begin(args.features, args.first_shard);
}

// Sums of one row of x, from column `column` on, with the bias.
LAYERCAST_INLINE void write_row(const LinearArgs& args, int64_t row, int64_t column, int64_t columns,
                                const float* sums) {
  float* y = args.y + row * args.N + column;
  for_each_vector(columns, [&](int64_t j, auto lanes) {
    F32 sum = load(sums + j, lanes);
    if (args.bias != nullptr) sum = sum + read_vector(args.bias, column + j, lanes, args.bias_storage);
    store(y + j, canonical(sum), lanes);
  });
}

}  // namespace
}  // namespace layercast::LAYERCAST_ISA
