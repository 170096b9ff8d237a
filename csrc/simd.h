// The vector type each kernel is written in, one definition per instruction set.
//
// A kernel file is compiled once per instruction set, with LAYERCAST_ISA naming it (avx512, avx2, neon, scalar) and
// LAYERCAST_LANES its width. Everything lives in that name's namespace and in an anonymous one inside it: an inline
// function with external linkage would be emitted by every copy and merged by the linker, and the scalar path could
// then run AVX-512 code. For the same reason kernel files use no templates of the standard library.
//
// F32, I32 and U32 are compiler vector types (plain types for one lane), so + - * / < ?: & << mean the same
// everywhere, each arithmetic one rounded once. Only what the compiler has no operator for is spelt out here.
#pragma once

#include <cstdint>
#include <cstring>

#if LAYERCAST_LANES >= 8
#include <immintrin.h>
#elif LAYERCAST_LANES == 4
#include <arm_neon.h>
#endif

#define LAYERCAST_INLINE inline __attribute__((always_inline))

namespace layercast::LAYERCAST_ISA {
namespace {

constexpr int kLanes = LAYERCAST_LANES;

#if LAYERCAST_LANES == 1
using F32 = float;
using I32 = int32_t;
using U32 = uint32_t;
#else
typedef float F32 __attribute__((vector_size(LAYERCAST_LANES * 4)));
typedef int32_t I32 __attribute__((vector_size(LAYERCAST_LANES * 4)));
typedef uint32_t U32 __attribute__((vector_size(LAYERCAST_LANES * 4)));
#endif

template <class To, class From>
LAYERCAST_INLINE To bitcast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

LAYERCAST_INLINE F32 load(const float* p) {
  F32 v;
  memcpy(&v, p, sizeof v);
  return v;
}

LAYERCAST_INLINE U32 load_words(const void* p) {
  U32 v;
  memcpy(&v, p, sizeof v);
  return v;
}

// 16-bit words, each in a word of 32.
LAYERCAST_INLINE U32 load_halves(const void* p) {
#if LAYERCAST_LANES == 1
  uint16_t halves;
#else
  typedef uint16_t Halves __attribute__((vector_size(LAYERCAST_LANES * 2)));
  Halves halves;
#endif
  memcpy(&halves, p, sizeof halves);
#if LAYERCAST_LANES == 1
  return halves;
#else
  return __builtin_convertvector(halves, U32);
#endif
}

LAYERCAST_INLINE void store(float* p, F32 v) { memcpy(p, &v, sizeof v); }

// How many lanes of a vector are meant: all of them, known when compiling, or the first `count` at a row's end.
struct AllLanes {
  static constexpr int count = kLanes;
};
struct SomeLanes {
  int count;
};

LAYERCAST_INLINE F32 load(const float* p, AllLanes) { return load(p); }
LAYERCAST_INLINE void store(float* p, F32 v, AllLanes) { store(p, v); }

// The lanes past `count` read as +0 and are not written; their memory is not touched.
#if LAYERCAST_LANES == 16

LAYERCAST_INLINE __mmask16 mask_of(SomeLanes some) { return static_cast<__mmask16>((1u << some.count) - 1); }
LAYERCAST_INLINE F32 load(const float* p, SomeLanes some) { return _mm512_maskz_loadu_ps(mask_of(some), p); }
LAYERCAST_INLINE void store(float* p, F32 v, SomeLanes some) { _mm512_mask_storeu_ps(p, mask_of(some), v); }

#elif LAYERCAST_LANES == 8

LAYERCAST_INLINE __m256i mask_of(SomeLanes some) { return bitcast<__m256i>(I32{0, 1, 2, 3, 4, 5, 6, 7} < some.count); }
LAYERCAST_INLINE F32 load(const float* p, SomeLanes some) { return _mm256_maskload_ps(p, mask_of(some)); }
LAYERCAST_INLINE void store(float* p, F32 v, SomeLanes some) { _mm256_maskstore_ps(p, mask_of(some), v); }

#else

LAYERCAST_INLINE F32 load(const float* p, SomeLanes some) {
  float lanes[kLanes] = {};
  memcpy(lanes, p, sizeof(float) * static_cast<size_t>(some.count));
  return load(lanes);
}

LAYERCAST_INLINE void store(float* p, F32 v, SomeLanes some) {
  float lanes[kLanes];
  store(lanes, v);
  memcpy(p, lanes, sizeof(float) * static_cast<size_t>(some.count));
}

#endif

// f(i, lanes) for each vector of a row of n elements, i being its first element.
template <class Function>
LAYERCAST_INLINE void for_each_vector(int64_t n, Function f) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) f(i, AllLanes{});
  if (kLanes > 1 && i < n) f(i, SomeLanes{static_cast<int>(n - i)});
}

// One binary32 fused multiply-add without hardware for it. The product of two 24-bit significands is exact in
// binary64; the sum is rounded to odd there (its error, by TwoSum, says whether anything was lost and on which side),
// and 53 bits rounded to odd, then to nearest at 24 bits or fewer, is the single rounding (Boldo & Melquiond 2008).
// Nothing over- or underflows in binary64, so the argument covers subnormal results too.
LAYERCAST_INLINE float fma_emulated(float a, float b, float c) {
  const double product = static_cast<double>(a) * static_cast<double>(b);
  const double addend = c;
  double sum = product + addend;
  const double part = sum - product;
  const double error = (product - (sum - part)) + (addend - part);
  int64_t sum_bits = bitcast<int64_t>(sum);
  if (error != 0.0 && error == error && (sum_bits & 1) == 0) {
    // An even last bit: step by one towards the exact value, so that the bit is odd.
    sum_bits += ((error > 0.0) == (sum > 0.0)) ? 1 : -1;
    sum = bitcast<double>(sum_bits);
  }
  return static_cast<float>(sum);
}

#if LAYERCAST_LANES == 16

LAYERCAST_INLINE F32 splat(float x) { return _mm512_set1_ps(x); }
LAYERCAST_INLINE F32 fma(F32 a, F32 b, F32 c) { return _mm512_fmadd_ps(a, b, c); }
LAYERCAST_INLINE F32 sqrt(F32 a) { return _mm512_sqrt_ps(a); }
LAYERCAST_INLINE I32 round_to_int(F32 a) { return bitcast<I32>(_mm512_cvtps_epi32(a)); }
LAYERCAST_INLINE F32 to_float(I32 a) { return _mm512_cvtepi32_ps(bitcast<__m512i>(a)); }
// The low half of each 32-bit word, an IEEE binary16, made binary32 (exact).
LAYERCAST_INLINE F32 widen_half(U32 a) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(bitcast<__m512i>(a))); }

#elif LAYERCAST_LANES == 8

LAYERCAST_INLINE F32 splat(float x) { return _mm256_set1_ps(x); }
LAYERCAST_INLINE F32 fma(F32 a, F32 b, F32 c) { return _mm256_fmadd_ps(a, b, c); }
LAYERCAST_INLINE F32 sqrt(F32 a) { return _mm256_sqrt_ps(a); }
LAYERCAST_INLINE I32 round_to_int(F32 a) { return bitcast<I32>(_mm256_cvtps_epi32(a)); }
LAYERCAST_INLINE F32 to_float(I32 a) { return _mm256_cvtepi32_ps(bitcast<__m256i>(a)); }
LAYERCAST_INLINE F32 widen_half(U32 a) {
  const __m256i words = bitcast<__m256i>(a & 0xffffu);
  return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

#elif LAYERCAST_LANES == 4

LAYERCAST_INLINE F32 splat(float x) { return bitcast<F32>(vdupq_n_f32(x)); }
LAYERCAST_INLINE F32 fma(F32 a, F32 b, F32 c) {
  return bitcast<F32>(vfmaq_f32(bitcast<float32x4_t>(c), bitcast<float32x4_t>(a), bitcast<float32x4_t>(b)));
}
LAYERCAST_INLINE F32 sqrt(F32 a) { return bitcast<F32>(vsqrtq_f32(bitcast<float32x4_t>(a))); }
LAYERCAST_INLINE I32 round_to_int(F32 a) { return bitcast<I32>(vcvtnq_s32_f32(bitcast<float32x4_t>(a))); }
LAYERCAST_INLINE F32 to_float(I32 a) { return bitcast<F32>(vcvtq_f32_s32(bitcast<int32x4_t>(a))); }
LAYERCAST_INLINE F32 widen_half(U32 a) {
  return bitcast<F32>(vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(bitcast<uint32x4_t>(a)))));
}

#elif LAYERCAST_LANES == 1

LAYERCAST_INLINE F32 splat(float x) { return x; }
LAYERCAST_INLINE F32 fma(F32 a, F32 b, F32 c) {
#if defined(__aarch64__)
  return __builtin_fmaf(a, b, c);  // One instruction of the baseline.
#else
  return fma_emulated(a, b, c);
#endif
}
LAYERCAST_INLINE F32 sqrt(F32 a) {
#if defined(__x86_64__)
  float root;
  __asm__("sqrtss %1, %0" : "=x"(root) : "x"(a));
  return root;
#else
  float root;
  __asm__("fsqrt %s0, %s1" : "=w"(root) : "w"(a));
  return root;
#endif
}
// Arguments are within +-2^22: adding and taking away 1.5 * 2^23 rounds to the nearest even integer. What becomes of a
// NaN differs between processors and is never used.
LAYERCAST_INLINE I32 round_to_int(F32 a) { return a == a ? static_cast<I32>((a + 0x1.8p23f) - 0x1.8p23f) : 0; }
LAYERCAST_INLINE F32 to_float(I32 a) { return static_cast<float>(a); }
LAYERCAST_INLINE F32 widen_half(U32 a) {
  const uint32_t magnitude = (a & 0x7fffu) << 13;
  // The exponent's bias differs by 112; the product is exact, subnormal halves included.
  float value = bitcast<float>(magnitude) * 0x1p112f;
  if ((a & 0x7c00u) == 0x7c00u) value = bitcast<float>(magnitude | 0x7f800000u);
  return bitcast<float>(bitcast<uint32_t>(value) | ((a & 0x8000u) << 16));
}

#else
#error "LAYERCAST_LANES must be 1, 4, 8 or 16"
#endif

// NaN differs in sign and payload between processors: results hold the one quiet NaN 0x7fc00000.
LAYERCAST_INLINE F32 canonical(F32 v) { return v != v ? splat(bitcast<float>(0x7fc00000)) : v; }

// The larger; NaN where either is NaN (the hardware's maximum would drop one of them, which one depends on the set).
LAYERCAST_INLINE F32 maximum(F32 a, F32 b) {
  const F32 larger = a > b ? a : b;
  return a != a ? a : larger;
}

// The largest of all lanes, NaN where one is NaN. Where both zeros are largest either may come out; what is computed
// from a maximum m does not show which: exp(x - m) is 1 for both, and log_softmax subtracts a positive log then.
LAYERCAST_INLINE float largest_lane(F32 v) {
#if LAYERCAST_LANES == 1
  return v;
#else
  float lanes[kLanes];
  store(lanes, v);
#pragma GCC unroll 4
  for (int width = kLanes / 2; width >= 1; width /= 2) {
    for (int i = 0; i < width; ++i) {
      const float a = lanes[i], b = lanes[i + width];
      const float larger = a > b ? a : b;
      lanes[i] = a != a ? a : larger;
    }
  }
  return lanes[0];
#endif
}

LAYERCAST_INLINE F32 absolute(F32 v) { return bitcast<F32>(bitcast<U32>(v) & 0x7fffffffu); }

// Rows become columns: words[i] lane j goes to words[j] lane i, in log2(lanes) rounds that each swap the
// off-diagonal blocks of one size.
#if LAYERCAST_LANES > 1
template <int kStep, int... kIs>
LAYERCAST_INLINE void transpose_round(U32 (&words)[kLanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (i & kStep) continue;
    const U32 a = words[i], b = words[i | kStep];
#if defined(__clang__) || __GNUC__ >= 12
    words[i] = __builtin_shufflevector(a, b, ((kIs & kStep) ? kLanes + (kIs ^ kStep) : kIs)...);
    words[i | kStep] = __builtin_shufflevector(a, b, ((kIs & kStep) ? kLanes + kIs : (kIs ^ kStep))...);
#else
    words[i] = __builtin_shuffle(a, b, U32{((kIs & kStep) ? kLanes + (kIs ^ kStep) : kIs)...});
    words[i | kStep] = __builtin_shuffle(a, b, U32{((kIs & kStep) ? kLanes + kIs : (kIs ^ kStep))...});
#endif
  }
}
#endif

LAYERCAST_INLINE void transpose(U32 (&words)[kLanes]) {
#if LAYERCAST_LANES == 16
#define LAYERCAST_LANE_LIST 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
  transpose_round<1, LAYERCAST_LANE_LIST>(words);
  transpose_round<2, LAYERCAST_LANE_LIST>(words);
  transpose_round<4, LAYERCAST_LANE_LIST>(words);
  transpose_round<8, LAYERCAST_LANE_LIST>(words);
#elif LAYERCAST_LANES == 8
#define LAYERCAST_LANE_LIST 0, 1, 2, 3, 4, 5, 6, 7
  transpose_round<1, LAYERCAST_LANE_LIST>(words);
  transpose_round<2, LAYERCAST_LANE_LIST>(words);
  transpose_round<4, LAYERCAST_LANE_LIST>(words);
#elif LAYERCAST_LANES == 4
#define LAYERCAST_LANE_LIST 0, 1, 2, 3
  transpose_round<1, LAYERCAST_LANE_LIST>(words);
  transpose_round<2, LAYERCAST_LANE_LIST>(words);
#else
  (void)words;
#endif
}

// A vector of each row from byte `offset` on, transposed.
LAYERCAST_INLINE void load_transposed(const char* const (&rows)[kLanes], int64_t offset, U32 (&words)[kLanes]) {
#if LAYERCAST_LANES == 8
  // Half a row and half of the fourth row after it side by side, as they are loaded: what is left to do stays within
  // halves and takes 16 shuffles, where exchanging blocks takes 48.
  for (int half = 0; half < 2; ++half) {
    __m256i pairs[4], mixed[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const char* first = rows[i] + offset + 16 * half;
      const char* second = rows[i + 4] + offset + 16 * half;
      pairs[i] =
          _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(first))),
                                  _mm_loadu_si128(reinterpret_cast<const __m128i*>(second)), 1);
    }
    mixed[0] = _mm256_unpacklo_epi32(pairs[0], pairs[1]);
    mixed[1] = _mm256_unpackhi_epi32(pairs[0], pairs[1]);
    mixed[2] = _mm256_unpacklo_epi32(pairs[2], pairs[3]);
    mixed[3] = _mm256_unpackhi_epi32(pairs[2], pairs[3]);
    words[4 * half] = bitcast<U32>(_mm256_unpacklo_epi64(mixed[0], mixed[2]));
    words[4 * half + 1] = bitcast<U32>(_mm256_unpackhi_epi64(mixed[0], mixed[2]));
    words[4 * half + 2] = bitcast<U32>(_mm256_unpacklo_epi64(mixed[1], mixed[3]));
    words[4 * half + 3] = bitcast<U32>(_mm256_unpackhi_epi64(mixed[1], mixed[3]));
  }
#else
#pragma GCC unroll 16
  for (int lane = 0; lane < kLanes; ++lane) words[lane] = load_words(rows[lane] + offset);
  transpose(words);
#endif
}

}  // namespace
}  // namespace layercast::LAYERCAST_ISA
