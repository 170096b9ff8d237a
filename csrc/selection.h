// The largest elements of a row, ordered: by value, then by the lower index. No arithmetic, so one copy serves all.
#pragma once

#include <cstdint>

namespace layercast {

struct TopkArgs {
  const float* x;      // (rows, n), contiguous
  float* values;       // (rows, k)
  int64_t* indices;    // (rows, k)
  int64_t rows, n, k;  // k <= n < 2^32
};

// Rows [begin, end): the k largest, in descending order. NaN is above everything; -0 and +0 are equal.
void topk(const TopkArgs& args, int64_t begin, int64_t end);

// Orders elements as `topk` does: of two keys the larger comes first, and the index is index_of(key).
uint64_t order_key(float value, int64_t index);
int64_t index_of(uint64_t key);

}  // namespace layercast
