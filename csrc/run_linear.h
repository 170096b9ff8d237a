// `linear` shared out over threads.
#pragma once

#include "grain.h"
#include "kernels.h"
#include "threads.h"

namespace layercast {

inline void run_linear(const Kernels& kernels, const LinearArgs& args, int threads) {
  if (args.M == 0 || args.N == 0) return;
  const int64_t units = kernels.linear_units(args);
  parallel_for(threads, units, grain_of(args.M * args.N * args.K / units),
               [&](int64_t begin, int64_t end) { kernels.linear(args, begin, end); });
}

}  // namespace layercast
