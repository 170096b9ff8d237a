#include "sampling.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "selection.h"

namespace layercast {
namespace {

__extension__ using uint128_t = unsigned __int128;

// p * 2^40 as the nearest integer, ties to even: exact in binary64 but for the rounding, which adding 2^52 makes.
uint64_t weight_of(float p) {
  const double scaled = static_cast<double>(p) * 0x1p40;
  return static_cast<uint64_t>((scaled + 0x1p52) - 0x1p52);
}

// The tokens that top-k and top-p leave, by ascending index.
void keep(const SampleArgs& args, const float* scores, const std::vector<uint64_t>& weights,
          std::vector<int64_t>& kept) {
  kept.clear();
  const bool all = args.top_k == args.n && args.top_p == uint64_t{1} << 32;
  if (all) {
    for (int64_t i = 0; i < args.n; ++i) kept.push_back(i);
    return;
  }
  std::vector<uint64_t> keys(static_cast<size_t>(args.n));
  for (int64_t i = 0; i < args.n; ++i) keys[i] = order_key(scores[i], i);
  std::partial_sort(keys.begin(), keys.begin() + args.top_k, keys.end(), std::greater<>());
  keys.resize(static_cast<size_t>(args.top_k));
  uint64_t total = 0;
  for (const uint64_t key : keys) total += weights[index_of(key)];
  // ceil(total * top_p), exactly.
  const auto cut = static_cast<uint64_t>((static_cast<uint128_t>(total) * args.top_p + 0xffffffffu) >> 32);
  uint64_t before = 0;
  for (const uint64_t key : keys) {
    if (before >= cut) break;
    kept.push_back(index_of(key));
    before += weights[index_of(key)];
  }
  std::sort(kept.begin(), kept.end());
}

std::array<uint32_t, 2> words(uint64_t v) { return {static_cast<uint32_t>(v), static_cast<uint32_t>(v >> 32)}; }

uint64_t draw(uint64_t seed, int64_t sequence_key, int64_t position) {
  const auto [p0, p1] = words(static_cast<uint64_t>(position));
  const auto [s0, s1] = words(static_cast<uint64_t>(sequence_key));
  const std::array<uint32_t, 4> out = philox({p0, p1, s0, s1}, words(seed));
  return out[0] | static_cast<uint64_t>(out[1]) << 32;
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

void sample(const SampleArgs& args, int64_t begin, int64_t end) {
  std::vector<uint64_t> weights(static_cast<size_t>(args.n));
  std::vector<int64_t> kept;
  for (int64_t row = begin; row < end; ++row) {
    const float* p = args.exponentials + row * args.n;
    args.tokens[row] = -1;
    bool valid = true;
    for (int64_t i = 0; i < args.n; ++i) {
      valid = valid && p[i] == p[i];
      weights[i] = valid ? weight_of(p[i]) : 0;
    }
    if (!valid) continue;
    keep(args, args.scores + row * args.n, weights, kept);
    uint64_t total = 0;
    for (const int64_t token : kept) total += weights[token];
    const uint64_t r = draw(args.seed, args.sequence_keys[row], args.positions[row]);
    const auto target = static_cast<uint64_t>(static_cast<uint128_t>(r) * total >> 64);
    uint64_t running = 0;
    for (const int64_t token : kept) {
      running += weights[token];
      if (running > target) {
        args.tokens[row] = token;
        break;
      }
    }
  }
}

}  // namespace layercast
