// How fast fused multiply-adds go when nothing else is in their way: the peak that `linear` is measured against.
#include "kernels.h"
#include "simd.h"

namespace layercast::LAYERCAST_ISA {
namespace {

// Chains that do not wait for each other: more than any processor's latency times its units, and all in registers.
#if LAYERCAST_LANES == 16 || LAYERCAST_LANES == 4
constexpr int kChains = 24;
#else
constexpr int kChains = 12;
#endif

}  // namespace

// The factor and the addend come at run time, so that nothing is folded; what is computed stays finite and normal.
void fma_rate(const FmaRateArgs& args, int64_t begin, int64_t end) {
  const F32 factor = splat(args.factor), addend = splat(args.addend);
  for (int64_t unit = begin; unit < end; ++unit) {
    F32 chains[kChains];
#pragma GCC unroll 24
    for (int c = 0; c < kChains; ++c) chains[c] = splat(static_cast<float>(c));
    for (int64_t step = 0; step < args.steps; ++step) {
#pragma GCC unroll 24
      for (int c = 0; c < kChains; ++c) chains[c] = fma(chains[c], factor, addend);
    }
    F32 sum = splat(0.0f);
#pragma GCC unroll 24
    for (int c = 0; c < kChains; ++c) sum = sum + chains[c];
    store(args.sums + unit * kMaxLanes, sum);
    args.counts[unit] = args.steps * kChains * kLanes;
  }
}

}  // namespace layercast::LAYERCAST_ISA
