// Softmax and log_softmax of rows, whole or shard by shard; and what selection and sampling need of a row: the largest
// element of each block, scores, integer weights.
#include "contract.h"
#include "kernels.h"
#include "map.h"
#include "reduce.h"

namespace layercast::LAYERCAST_ISA {
namespace {

// The largest element, NaN where there is one, -inf of nothing.
LAYERCAST_INLINE float row_maximum(const float* x, int64_t n) {
  F32 largest = splat(-infinity());
  int64_t i = 0;
  if (n >= 4 * kLanes) {
    F32 parts[4] = {largest, largest, largest, largest};
    for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) parts[j] = maximum(parts[j], load(x + i + j * kLanes));
    }
    largest = maximum(maximum(parts[0], parts[1]), maximum(parts[2], parts[3]));
  }
  for (; i + kLanes <= n; i += kLanes) largest = maximum(largest, load(x + i));
  float result = largest_lane(largest);
  for (; i < n; ++i) {
    const float larger = result > x[i] ? result : x[i];
    result = result != result ? result : larger;
  }
  return result;
}

// y = exp(x - largest) over the elements of shards [first, last), and their sums.
LAYERCAST_INLINE void exp_and_sum(const float* x, float* y, int64_t n, float largest, int first, int last,
                                  float* sums) {
  const F32 m = splat(largest);
  add_shards(y, nullptr, n, first, last, sums, [&](int64_t begin, int64_t end) __attribute__((always_inline)) {
    map(x + begin, y + begin, end - begin, [&](F32 v) { return exp(v - m); });
  });
}

LAYERCAST_INLINE void divide(float* y, int64_t n, float total) {
  map(y, y, n, [divisor = splat(total)](F32 v) { return v / divisor; });
}

LAYERCAST_INLINE void subtract(const float* x, float* y, int64_t n, float largest, float total) {
  const F32 m = splat(largest), log_total = log(splat(total));
  map(x, y, n, [&](F32 v) { return (v - m) - log_total; });
}

LAYERCAST_INLINE void store_depths(const float* scores, uint16_t* depths, int64_t count, F32 largest) {
  const F32 last = splat(static_cast<float>(kDepths - 1));
  for_each_vector(count, [&](int64_t i, auto lanes) {
    const F32 depth = (largest - load(scores + i, lanes)) * 64.0f;
    const I32 whole = round_to_int(depth < last ? depth : last);
    int32_t found[kLanes];
    memcpy(found, &whole, sizeof found);
    for (int lane = 0; lane < lanes.count; ++lane) depths[i + lane] = static_cast<uint16_t>(found[lane]);
  });
}

}  // namespace

void softmax(const RowArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* x = args.x + row * args.n;
    float* y = args.y + row * args.n;
    float sums[kShards] = {};
    exp_and_sum(x, y, args.n, row_maximum(x, args.n), 0, kShards, sums);
    divide(y, args.n, join_shards(sums));
  }
}

void log_softmax(const RowArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* x = args.x + row * args.n;
    float* y = args.y + row * args.n;
    float sums[kShards] = {};
    const float largest = row_maximum(x, args.n);
    exp_and_sum(x, y, args.n, largest, 0, kShards, sums);
    subtract(x, y, args.n, largest, join_shards(sums));
  }
}

void exp_shards(const LongRowArgs& args, int64_t begin, int64_t end) {
  for (int64_t shard = begin; shard < end; ++shard) args.shard_sums[shard] = 0.0f;
  exp_and_sum(args.x, args.y, args.n, args.largest, static_cast<int>(begin), static_cast<int>(end), args.shard_sums);
}

void softmax_shards(const LongRowArgs& args, int64_t begin, int64_t end) {
  const int64_t first = shard_begin(args.n, static_cast<int>(begin)), last = shard_begin(args.n, static_cast<int>(end));
  divide(args.y + first, last - first, join_shards(args.shard_sums));
}

void log_softmax_shards(const LongRowArgs& args, int64_t begin, int64_t end) {
  const int64_t first = shard_begin(args.n, static_cast<int>(begin)), last = shard_begin(args.n, static_cast<int>(end));
  subtract(args.x + first, args.y + first, last - first, args.largest, join_shards(args.shard_sums));
}

void block_maxima(const BlockMaximaArgs& args, int64_t begin, int64_t end) {
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t row = unit / args.blocks, first = unit % args.blocks * kSelectionBlock;
    const int64_t left = args.n - first;
    args.maxima[unit] = row_maximum(args.x + row * args.n + first, left < kSelectionBlock ? left : kSelectionBlock);
  }
}

void sampling_scores(const ScoreArgs& args, int64_t begin, int64_t end) {
  const F32 temperature = splat(args.temperature);
  for (int64_t block = begin; block < end; ++block) {
    const int64_t first = block * kSelectionBlock, left = args.n - first;
    const int64_t count = left < kSelectionBlock ? left : kSelectionBlock;
    map(args.x + first, args.scores + first, count, [&](F32 v) { return v / temperature; });
    args.maxima[block] = row_maximum(args.scores + first, count);
  }
}

void sampling_weights(const WeightArgs& args, int64_t begin, int64_t end) {
  const F32 largest = splat(args.largest);
  float p[kSelectionBlock];
  for (int64_t first = begin; first < end; first += kSelectionBlock) {
    const int64_t count = end - first < kSelectionBlock ? end - first : kSelectionBlock;
    map(args.scores + first, p, count, [&](F32 v) { return exp(v - largest); });
    if (args.depths != nullptr) store_depths(args.scores + first, args.depths + (first - begin), count, largest);
    uint64_t* weights = args.weights + (first - begin);
    for (int64_t i = 0; i < count; ++i) {
      // p * 2^40 is exact in binary64; adding 2^52 rounds it to the nearest integer, ties to even, in the low bits.
      weights[i] = bitcast<uint64_t>(static_cast<double>(p[i]) * 0x1p40 + 0x1p52) - bitcast<uint64_t>(0x1p52);
    }
  }
}

}  // namespace layercast::LAYERCAST_ISA
