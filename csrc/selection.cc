#include "selection.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <memory>

#include "dispatch.h"
#include "grain.h"
#include "threads.h"

namespace layercast {
namespace {

// The blocks' largest elements, of all rows.
std::unique_ptr<float[]> find_maxima(const float* x, int64_t rows, int64_t n, int threads) {
  const BlockMaximaArgs args = {.x = x, .maxima = nullptr, .rows = rows, .n = n, .blocks = block_count(n)};
  std::unique_ptr<float[]> maxima(new float[static_cast<size_t>(rows * args.blocks)]);
  BlockMaximaArgs with_maxima = args;
  with_maxima.maxima = maxima.get();
  const Kernels& kernels = active_kernels();
  parallel_for(threads, rows * args.blocks, grain_of(kSelectionBlock),
               [&](int64_t begin, int64_t end) { kernels.block_maxima(with_maxima, begin, end); });
  return maxima;
}

// Of `count` elements the first with the highest rank.
int64_t first_largest(const float* x, int64_t count) {
  int64_t found = 0;
  uint32_t highest = rank_of(x[0]);
  for (int64_t i = 1; i < count; ++i) {
    if (const uint32_t rank = rank_of(x[i]); rank > highest) {
      highest = rank;
      found = i;
    }
  }
  return found;
}

}  // namespace

void largest_keys(const float* x, int64_t n, int64_t k, const float* maxima, std::vector<uint64_t>& keys) {
  keys.clear();
  const int64_t blocks = block_count(n);
  uint32_t lowest = 0;
  if (maxima != nullptr && 0 < k && k < blocks) {
    // At least k elements reach the k-th largest of the blocks' maxima, so none below it is among the k largest.
    std::vector<uint32_t> ranks(static_cast<size_t>(blocks));
    for (int64_t b = 0; b < blocks; ++b) ranks[b] = rank_of(maxima[b]);
    std::nth_element(ranks.begin(), ranks.begin() + (k - 1), ranks.end(), std::greater<>());
    lowest = ranks[k - 1];
  }
  for (int64_t b = 0; b < blocks; ++b) {
    if (maxima != nullptr && rank_of(maxima[b]) < lowest) continue;
    const int64_t last = std::min(n, (b + 1) * kSelectionBlock);
    for (int64_t i = b * kSelectionBlock; i < last; ++i) {
      if (rank_of(x[i]) >= lowest) keys.push_back(order_key(x[i], i));
    }
  }
  // Keys are distinct: every correct algorithm gives the same order.
  std::partial_sort(keys.begin(), keys.begin() + k, keys.end(), std::greater<>());
  keys.resize(static_cast<size_t>(k));
}

void argmax(const ArgmaxArgs& args, int threads) {
  const int64_t blocks = block_count(args.n);
  const auto maxima = find_maxima(args.x, args.rows, args.n, threads);
  for (int64_t row = 0; row < args.rows; ++row) {
    const int64_t first = first_largest(maxima.get() + row * blocks, blocks) * kSelectionBlock;
    args.y[row] = first + first_largest(args.x + row * args.n + first, std::min(args.n - first, kSelectionBlock));
  }
}

void topk(const TopkArgs& args, int threads) {
  const int64_t blocks = block_count(args.n);
  const auto maxima = find_maxima(args.x, args.rows, args.n, threads);
  parallel_for(threads, args.rows, grain_of(args.n), [&](int64_t begin, int64_t end) {
    std::vector<uint64_t> keys;
    for (int64_t row = begin; row < end; ++row) {
      const float* x = args.x + row * args.n;
      largest_keys(x, args.n, args.k, maxima.get() + row * blocks, keys);
      for (int64_t i = 0; i < args.k; ++i) {
        const int64_t index = index_of(keys[i]);
        args.indices[row * args.k + i] = index;
        args.values[row * args.k + i] = x[index] != x[index] ? std::bit_cast<float>(0x7fc00000) : x[index];
      }
    }
  });
}

}  // namespace layercast
