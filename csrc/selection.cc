#include "selection.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <vector>

namespace layercast {

uint64_t order_key(float value, int64_t index) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) == 0) bits = 0;
  // Negative floats descend as their bits ascend.
  uint32_t rank = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  if (value != value) rank = 0xffffffffu;
  return static_cast<uint64_t>(rank) << 32 | (0xffffffffu - static_cast<uint32_t>(index));
}

int64_t index_of(uint64_t key) { return 0xffffffffu - static_cast<uint32_t>(key); }

void topk(const TopkArgs& args, int64_t begin, int64_t end) {
  std::vector<uint64_t> keys(static_cast<size_t>(args.n));
  for (int64_t row = begin; row < end; ++row) {
    const float* x = args.x + row * args.n;
    for (int64_t i = 0; i < args.n; ++i) keys[i] = order_key(x[i], i);
    // Keys are distinct: every correct algorithm gives the same order.
    std::partial_sort(keys.begin(), keys.begin() + args.k, keys.end(), std::greater<>());
    for (int64_t i = 0; i < args.k; ++i) {
      const int64_t index = index_of(keys[i]);
      const float value = x[index];
      args.indices[row * args.k + i] = index;
      args.values[row * args.k + i] = value != value ? std::bit_cast<float>(0x7fc00000) : value;
    }
  }
}

}  // namespace layercast
