// The largest elements of a row, ordered: by value, then by the lower index. No arithmetic, so every instruction set
// gives the same; vectors only find the largest element of each block, so that few blocks are looked into.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace layercast {

struct ArgmaxArgs {
  const float* x;  // (rows, n), contiguous, n > 0
  int64_t* y;      // (rows,): the first element that is the largest, or the first NaN
  int64_t rows, n;
};

struct TopkArgs {
  const float* x;      // (rows, n), contiguous
  float* values;       // (rows, k)
  int64_t* indices;    // (rows, k)
  int64_t rows, n, k;  // k <= n < 2^32
};

void argmax(const ArgmaxArgs& args, int threads);

// The k largest, in descending order. NaN is above everything; -0 and +0 are equal.
void topk(const TopkArgs& args, int threads);

// Orders elements as `topk` does: of two keys the larger comes first. A key's upper half is the value's rank, the lower
// half falls with the index.
inline uint32_t rank_of(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0xffffffffu;
  if (bits == 0x80000000u) bits = 0;
  // Negative floats descend as their bits ascend: all bits of theirs are turned, of others the sign.
  const auto negative = static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31);
  return bits ^ (negative | 0x80000000u);
}

inline uint64_t order_key(float value, int64_t index) {
  return static_cast<uint64_t>(rank_of(value)) << 32 | (0xffffffffu - static_cast<uint32_t>(index));
}

inline int64_t index_of(uint64_t key) { return 0xffffffffu - static_cast<uint32_t>(key); }

inline int64_t block_count(int64_t n) { return (n + kSelectionBlock - 1) / kSelectionBlock; }

// Keys of the k largest of n elements, in descending order; maxima are those of the row's blocks, or null.
void largest_keys(const float* x, int64_t n, int64_t k, const float* maxima, std::vector<uint64_t>& keys);

}  // namespace layercast
