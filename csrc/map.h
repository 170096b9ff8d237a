// A function applied element by element.
#pragma once

#include "simd.h"

namespace layercast::LAYERCAST_ISA {
namespace {

// y = f(x) over n elements, NaN made canonical; x and y may be the same.
template <class Function>
LAYERCAST_INLINE void map(const float* x, float* y, int64_t n, Function f) {
  for_each_vector(n, [&](int64_t i, auto lanes) { store(y + i, canonical(f(load(x + i, lanes))), lanes); });
}

}  // namespace
}  // namespace layercast::LAYERCAST_ISA
