#include "sampling.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>
#include <vector>

#include "dispatch.h"
#include "float_control.h"
#include "grain.h"
#include "selection.h"
#include "softmax.h"
#include "threads.h"

namespace layercast {
namespace {

__extension__ using uint128_t = unsigned __int128;

constexpr uint64_t kOne = uint64_t{1} << 32;  // 1 in units of top_p and min_p

// The scores of one row, and which of its tokens are kept: those from `lowest` on in `topk`'s order that weigh at least
// `lightest`.
struct Row {
  std::unique_ptr<float[]> scores, maxima;
  int64_t n = 0, blocks = 0;
  float largest = 0.0f;
  uint64_t lowest = 0, lightest = 0;

  int64_t begin_of(int64_t block) const { return block * kSelectionBlock; }
  int64_t end_of(int64_t block) const { return std::min(n, (block + 1) * kSelectionBlock); }
  bool may_keep(int64_t block) const { return rank_of(maxima[block]) >= lowest >> 32; }
};

// Weights of the kept tokens of a block, 0 for the others; depths of all, where asked for.
void kept_weights(const Kernels& kernels, const Row& row, int64_t block, uint64_t (&weights)[kSelectionBlock],
                  uint16_t* depths = nullptr) {
  const int64_t begin = row.begin_of(block), end = row.end_of(block);
  kernels.sampling_weights({.scores = row.scores.get(), .weights = weights, .depths = depths, .largest = row.largest},
                           begin, end);
  if (row.lowest == 0 && row.lightest == 0) return;
  for (int64_t i = begin; i < end; ++i) {
    uint64_t& weight = weights[i - begin];
    // Without a branch, which no processor could foresee.
    const bool kept = (order_key(row.scores[i], i) >= row.lowest) & (weight >= row.lightest);
    weight &= uint64_t{0} - uint64_t{kept};
  }
}

// Weight of the kept tokens at each depth, and each token's depth (the last one where none of a block may be kept).
std::vector<uint64_t> weigh_depths(const Kernels& kernels, const Row& row, uint16_t* depths, int threads) {
  const int64_t parts = std::min<int64_t>(threads, row.blocks);
  std::vector<uint64_t> found(static_cast<size_t>(parts * kDepths));
  parallel_for(threads, parts, 1, [&](int64_t begin, int64_t end) {
    uint64_t weights[kSelectionBlock];
    for (int64_t block = row.blocks * begin / parts; block < row.blocks * end / parts; ++block) {
      uint16_t* of_block = depths + row.begin_of(block);
      const int64_t count = row.end_of(block) - row.begin_of(block);
      if (!row.may_keep(block)) {
        std::fill(of_block, of_block + count, kDepths - 1);
        continue;
      }
      kept_weights(kernels, row, block, weights, of_block);
      uint64_t* sums = found.data() + begin * kDepths;
      for (int64_t i = 0; i < count; ++i) sums[of_block[i]] += weights[i];
    }
  });
  for (int64_t i = kDepths; i < parts * kDepths; ++i) found[i % kDepths] += found[i];
  found.resize(kDepths);
  return found;
}

// Raises `lowest` to the last token before which less than top_p of the kept weight lies. Depths order the tokens
// coarsely, so that only those of the depth it ends at are sorted.
void cut_top_p(const Kernels& kernels, Row& row, uint64_t top_p, int threads) {
  const std::unique_ptr<uint16_t[]> depths(new uint16_t[static_cast<size_t>(row.n)]);
  const std::vector<uint64_t> sums = weigh_depths(kernels, row, depths.get(), threads);
  const uint64_t total = std::accumulate(sums.begin(), sums.end(), uint64_t{0});
  // ceil(total * top_p), exactly.
  const auto cut = static_cast<uint64_t>((static_cast<uint128_t>(total) * top_p + (kOne - 1)) >> 32);
  uint64_t before = 0;
  int last = 0;
  for (; before + sums[last] < cut; ++last) before += sums[last];

  std::vector<uint64_t> keys;
  for (int64_t block = 0; block < row.blocks; ++block) {
    const uint16_t* begin = depths.get() + row.begin_of(block);
    const uint16_t* end = depths.get() + row.end_of(block);
    if (std::count(begin, end, last) == 0) continue;
    for (const uint16_t* at = begin; at < end; ++at) {
      const int64_t i = at - depths.get();
      if (*at == last && order_key(row.scores[i], i) >= row.lowest) keys.push_back(order_key(row.scores[i], i));
    }
  }
  std::sort(keys.begin(), keys.end(), std::greater<>());
  for (const uint64_t key : keys) {
    if (before >= cut) break;
    const int64_t i = index_of(key);
    uint64_t weight;
    kernels.sampling_weights(
        {.scores = row.scores.get(), .weights = &weight, .depths = nullptr, .largest = row.largest}, i, i + 1);
    row.lowest = key;
    before += weight;
  }
}

std::array<uint32_t, 2> words(uint64_t v) { return {static_cast<uint32_t>(v), static_cast<uint32_t>(v >> 32)}; }

uint64_t draw(uint64_t seed, int64_t sequence_key, int64_t position) {
  const auto [p0, p1] = words(static_cast<uint64_t>(position));
  const auto [s0, s1] = words(static_cast<uint64_t>(sequence_key));
  const std::array<uint32_t, 4> out = philox({p0, p1, s0, s1}, words(seed));
  return out[0] | static_cast<uint64_t>(out[1]) << 32;
}

// The first kept token, by ascending index, at which the running weight exceeds floor(r * total / 2^64).
int64_t pick(const Kernels& kernels, const Row& row, uint64_t r, int threads) {
  std::vector<uint64_t> sums(static_cast<size_t>(row.blocks));
  parallel_for(threads, row.blocks, grain_of(16 * kSelectionBlock), [&](int64_t begin, int64_t end) {
    uint64_t weights[kSelectionBlock];
    for (int64_t block = begin; block < end; ++block) {
      if (!row.may_keep(block)) continue;
      kept_weights(kernels, row, block, weights);
      sums[block] = std::accumulate(weights, weights + (row.end_of(block) - row.begin_of(block)), uint64_t{0});
    }
  });
  const uint64_t total = std::accumulate(sums.begin(), sums.end(), uint64_t{0});
  auto target = static_cast<uint64_t>(static_cast<uint128_t>(r) * total >> 64);
  int64_t block = 0;
  for (; target >= sums[block]; ++block) target -= sums[block];
  uint64_t weights[kSelectionBlock];
  kept_weights(kernels, row, block, weights);
  int64_t i = 0;
  for (; target >= weights[i]; ++i) target -= weights[i];
  return row.begin_of(block) + i;
}

int64_t sample_row(const SampleArgs& args, int64_t index, int threads) {
  const FloatControl control;
  const Kernels& kernels = active_kernels();
  Row row;
  row.n = args.n;
  row.blocks = block_count(args.n);
  row.scores.reset(new float[static_cast<size_t>(args.n)]);
  row.maxima.reset(new float[static_cast<size_t>(row.blocks)]);
  const ScoreArgs score_args = {.x = args.logits + index * args.n,
                                .scores = row.scores.get(),
                                .maxima = row.maxima.get(),
                                .n = args.n,
                                .temperature = args.temperature};
  parallel_for(threads, row.blocks, grain_of(2 * kSelectionBlock),
               [&](int64_t begin, int64_t end) { kernels.sampling_scores(score_args, begin, end); });
  row.largest = largest_of(row.maxima.get(), row.blocks);
  if (!(row.largest - row.largest == 0.0f)) return -1;
  if (args.top_k < args.n) {
    std::vector<uint64_t> keys;
    largest_keys(row.scores.get(), args.n, args.top_k, row.maxima.get(), keys);
    row.lowest = keys.back();
  }
  if (args.top_p < kOne) cut_top_p(kernels, row, args.top_p, threads);
  // The largest weight is 2^40, that of exp(0).
  row.lightest = args.min_p << 8;
  return pick(kernels, row, draw(args.seed, args.sequence_keys[index], args.positions[index]), threads);
}

}  // namespace

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xd2511f53} * counter[0], b = uint64_t{0xcd9e8d57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key = {key[0] + 0x9e3779b9u, key[1] + 0xbb67ae85u};
  }
  return counter;
}

void sample(const SampleArgs& args, int threads) {
  if (args.rows < threads) {
    for (int64_t row = 0; row < args.rows; ++row) args.tokens[row] = sample_row(args, row, threads);
    return;
  }
  parallel_for(threads, args.rows, grain_of(16 * args.n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) args.tokens[row] = sample_row(args, row, 1);
  });
}

}  // namespace layercast
