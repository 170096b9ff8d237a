// How much work is worth handing to another thread.
#pragma once

#include <cstdint>

namespace layercast {

// Units of work so small that handing them to another thread costs more than doing them (about 2^15 operations).
inline int64_t grain_of(int64_t operations_per_unit) {
  const int64_t grain = (int64_t{1} << 15) / (operations_per_unit + 1);
  return grain < 1 ? 1 : grain;
}

}  // namespace layercast
