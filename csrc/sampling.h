// Drawing a token from exact integer weights by a counter-based generator.
#pragma once

#include <array>
#include <cstdint>

namespace layercast {

// Philox 4x32-10 (Salmon et al. 2011): four words that depend on key and counter alone.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

struct SampleArgs {
  const float* scores;           // (rows, n), in whose order tokens are kept by top-k and top-p
  const float* exponentials;     // (rows, n), each within [0, 1]
  const int64_t* sequence_keys;  // (rows,)
  const int64_t* positions;      // (rows,)
  int64_t* tokens;               // (rows,); -1 where a row has NaN or no token
  int64_t rows, n;
  int64_t top_k;   // tokens kept, 1..n
  uint64_t top_p;  // in units of 2^-32, 1..2^32
  uint64_t seed;
};

// Rows [begin, end). A weight is the exponential in units of 2^-40, rounded to the nearest integer, ties to even; sums
// are exact. Kept are the top_k tokens by score, ties by the lower index, and of those, in that order, each before
// which less than top_p of their weight lies. The 64-bit draw r, Philox at counter (position, sequence key) under the
// seed, picks the first kept token, by ascending index, at which the running weight exceeds floor(r * total / 2^64).
void sample(const SampleArgs& args, int64_t begin, int64_t end);

}  // namespace layercast
