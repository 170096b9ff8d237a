// The largest elements of a row, ordered: by value, then by the lower index. No arithmetic, so every instruction set
// gives the same; vectors only find the largest element of each block, so that few blocks are looked into.
#pragma once

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
uint32_t rank_of(float value);
uint64_t order_key(float value, int64_t index);
int64_t index_of(uint64_t key);

int64_t block_count(int64_t n);

// Keys of the k largest of n elements, in descending order; maxima are those of the row's blocks, or null.
void largest_keys(const float* x, int64_t n, int64_t k, const float* maxima, std::vector<uint64_t>& keys);

}  // namespace layercast
