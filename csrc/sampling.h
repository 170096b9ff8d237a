// Drawing a token from exact integer weights by a counter-based generator.
#pragma once

#include <array>
#include <cstdint>

namespace layercast {

// Philox 4x32-10 (Salmon et al. 2011): four words that depend on key and counter alone.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

struct SampleArgs {
  const float* logits;           // (rows, n), contiguous, n > 0
  const int64_t* sequence_keys;  // (rows,)
  const int64_t* positions;      // (rows,)
  int64_t* tokens;               // (rows,); -1 where a row has NaN, +inf or no finite logit
  int64_t rows, n;
  float temperature;
  int64_t top_k;   // tokens kept, 1..n
  uint64_t top_p;  // in units of 2^-32, 1..2^32
  uint64_t min_p;  // in units of 2^-32, 0..2^32
  uint64_t seed;
};

// A score is logit / temperature; a weight is exp(score - the largest score) in units of 2^-40, rounded to the nearest
// integer, ties to even, so that every sum is exact, in any order. Kept are the top_k tokens by score, ties by the
// lower index; of those, in that order, each before which less than top_p of their weight lies; of those, the ones with
// at least min_p of the largest weight. The 64-bit draw r, Philox at counter (position, sequence key) under the seed,
// picks the first kept token, by ascending index, at which the running weight exceeds floor(r * total / 2^64).
void sample(const SampleArgs& args, int threads);

}  // namespace layercast
