// The emulated fused multiply-add of the scalar kernels against libm's, bit by bit, over patterns made to break it.
//
// usage: fma_emulation [COUNT]
// Prints "fma_emulation cases=N mismatches=0 naive_mismatches=M": the naive way, a binary64 sum rounded again, is the
// control, and M must not be zero.
#define LAYERCAST_ISA scalar
#define LAYERCAST_LANES 1
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "simd.h"

namespace {

uint64_t state = 0x9e3779b97f4a7c15u;

// SplitMix64.
uint64_t random_bits() {
  uint64_t z = (state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Bit patterns of every kind: uniform, few significant bits (ties), near a power of two, subnormal, special.
float adversarial() {
  const uint64_t r = random_bits();
  const auto bits = static_cast<uint32_t>(r >> 32);
  switch (r % 6) {
    case 0:
      return std::bit_cast<float>(bits);
    case 1:
      return std::bit_cast<float>(bits & 0xfff00000u);
    case 2:
      return std::bit_cast<float>((bits & 0xff800000u) | (0x007fffffu & (0u - (bits & 3u))));
    case 3:
      return std::bit_cast<float>((bits & 0x80000000u) | (bits & 0x007fffffu));
    case 4:
      return std::bit_cast<float>((bits & 0x807fffffu) | ((0x70u + (bits >> 28)) << 23));
    default: {
      constexpr uint32_t kSpecials[] = {0x00000000u, 0x80000000u, 0x3f800000u, 0xbf800000u, 0x7f800000u, 0xff800000u,
                                        0x7fc00000u, 0x00000001u, 0x007fffffu, 0x00800000u, 0x7f7fffffu, 0x34000000u};
      return std::bit_cast<float>(kSpecials[bits % (sizeof kSpecials / sizeof *kSpecials)]);
    }
  }
}

bool same(float a, float b) {
  return (std::isnan(a) && std::isnan(b)) || std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
}

}  // namespace

int main(int argc, char** argv) {
  const long count = argc > 1 ? std::atol(argv[1]) : 20000000;
  long mismatches = 0, naive_mismatches = 0;
  for (long i = 0; i < count; ++i) {
    const float a = adversarial(), b = adversarial();
    float c = adversarial();
    // A third of the addends lie half an ulp or so from the product: where the two roundings disagree.
    if (i % 3 == 0) c = std::ldexp(a * b, static_cast<int>(random_bits() % 60) - 30);
    const float exact = std::fma(a, b, c);
    const float naive = static_cast<float>(static_cast<double>(a) * b + static_cast<double>(c));
    if (!same(layercast::scalar::fma_emulated(a, b, c), exact)) ++mismatches;
    if (!same(naive, exact)) ++naive_mismatches;
  }
  std::printf("fma_emulation cases=%ld mismatches=%ld naive_mismatches=%ld\n", count, mismatches, naive_mismatches);
  return mismatches == 0 ? 0 : 1;
}
