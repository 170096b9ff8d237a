#include "softmax.h"

#include <vector>

#include "dispatch.h"
#include "float_control.h"
#include "grain.h"
#include "threads.h"

namespace layercast {
namespace {

// From here on a row is worth three meetings of the threads.
constexpr int64_t kLongRow = int64_t{1} << 14;
constexpr int kShardCount = 8;

using RowKernel = void (*)(const RowArgs&, int64_t, int64_t);
using ShardKernel = void (*)(const LongRowArgs&, int64_t, int64_t);

// One row, its shards shared out. A shard's sum is made by one thread, in order, whichever that is.
void share_shards(const Kernels& kernels, const float* x, float* y, int64_t n, int threads, ShardKernel finish) {
  std::vector<float> maxima((n + kSelectionBlock - 1) / kSelectionBlock);
  const auto blocks = static_cast<int64_t>(maxima.size());
  const BlockMaximaArgs block_args = {.x = x, .maxima = maxima.data(), .rows = 1, .n = n, .blocks = blocks};
  parallel_for(threads, blocks, grain_of(kSelectionBlock),
               [&](int64_t begin, int64_t end) { kernels.block_maxima(block_args, begin, end); });
  float sums[kShardCount];
  const LongRowArgs args = {.x = x, .y = y, .shard_sums = sums, .n = n, .largest = largest_of(maxima.data(), blocks)};
  parallel_for(threads, kShardCount, 1, [&](int64_t begin, int64_t end) { kernels.exp_shards(args, begin, end); });
  parallel_for(threads, kShardCount, 1, [&](int64_t begin, int64_t end) { finish(args, begin, end); });
}

void run(const RowArgs& args, int threads, RowKernel whole, ShardKernel finish) {
  if (threads > 1 && args.rows < threads && args.n >= kLongRow) {
    for (int64_t row = 0; row < args.rows; ++row) {
      share_shards(active_kernels(), args.x + row * args.n, args.y + row * args.n, args.n, threads, finish);
    }
    return;
  }
  parallel_for(threads, args.rows, grain_of(16 * args.n), [&](int64_t begin, int64_t end) { whole(args, begin, end); });
}

}  // namespace

float largest_of(const float* maxima, int64_t blocks) {
  const FloatControl control;
  float largest = maxima[0];
  for (int64_t i = 1; i < blocks && largest == largest; ++i) {
    if (!(maxima[i] <= largest)) largest = maxima[i];
  }
  return largest;
}

void softmax(const RowArgs& args, int threads) {
  run(args, threads, active_kernels().softmax, active_kernels().softmax_shards);
}

void log_softmax(const RowArgs& args, int threads) {
  run(args, threads, active_kernels().log_softmax, active_kernels().log_softmax_shards);
}

}  // namespace layercast
