// The scalar arithmetic every kernel shares, written on vectors: each lane does exactly these operations in this order.
//
// Compiled once per instruction set (see simd.h). No call of libm, no contraction: a fused multiply-add happens where
// `fma` is written and nowhere else. Coefficients are minimax fits rounded to binary32; the bounds stated are the
// largest errors over all 2^32 inputs, found by exhaustion in csrc/tests.
#pragma once

#include "simd.h"

namespace layercast::LAYERCAST_ISA {
namespace {

constexpr int kShards = 8;
constexpr int kChunk = 64;
constexpr int kKeyBlock = 64;

LAYERCAST_INLINE int64_t shard_begin(int64_t length, int shard) { return length * shard / kShards; }

LAYERCAST_INLINE float infinity() { return bitcast<float>(0x7f800000); }

// e^x as (significand + low) * 2^exponent, for |x| <= 160 or NaN; significand within [0.70, 1.42], low below its last
// place: the pair is good to about 0.2 ulp of the significand, for functions that would otherwise add up roundings.
struct SplitExp {
  F32 significand;
  F32 low;
  I32 exponent;
};

LAYERCAST_INLINE SplitExp split_exp(F32 x) {
  const I32 n = round_to_int(x * 0x1.715476p+0f);
  const F32 count = to_float(n);
  F32 r = fma(count, splat(-0x1.62e43p-1f), x);
  r = fma(count, splat(0x1.05c61p-29f), r);
  F32 p = splat(0x1.9f085ap-13f);
  p = fma(p, r, splat(0x1.6d8d52p-10f));
  p = fma(p, r, splat(0x1.111272p-7f));
  p = fma(p, r, splat(0x1.55548ep-5f));
  p = fma(p, r, splat(0x1.555554p-3f));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1.0f));
  const F32 significand = fma(p, r, splat(1.0f));
  // p r + 1 - significand, exactly but for the last rounding.
  const F32 low = fma(p, r, 1.0f - significand);
  return {significand, low, n};
}

// v * 2^n in two exact powers, so that only a subnormal result rounds; |n| <= 250.
LAYERCAST_INLINE F32 scale_by_power(F32 v, I32 n) {
  const I32 half = n >> 1;
  const F32 first = bitcast<F32>((half + 127) << 23);
  const F32 second = bitcast<F32>((n - half + 127) << 23);
  return (v * first) * second;
}

// e^x within 1 ulp (0.874); exactly 1 at 0. Overflows to +inf, underflows through the subnormals to +0. NaN stays NaN.
LAYERCAST_INLINE F32 exp(F32 x) {
  F32 clamped = x > 89.5f ? splat(89.5f) : x;
  clamped = clamped < -105.0f ? splat(-105.0f) : clamped;
  const SplitExp e = split_exp(clamped);
  return x != x ? x : scale_by_power(e.significand, e.exponent);
}

// log(x) within 1 ulp (0.941); log(+-0) = -inf, log(+inf) = +inf, NaN below zero.
LAYERCAST_INLINE F32 log(F32 x) {
  const auto subnormal = x < 0x1p-126f;
  const F32 scaled = subnormal ? x * 0x1p23f : x;
  const U32 bits = bitcast<U32>(scaled);
  // x = m * 2^k with m within [2/3, 4/3).
  const U32 shifted = (bits - 0x3f2aaaabu) & 0xff800000u;
  const F32 m = bitcast<F32>(bits - shifted);
  const F32 k = to_float(bitcast<I32>(shifted) >> 23) - (subnormal ? splat(23.0f) : splat(0.0f));
  const F32 f = m - 1.0f;
  const F32 square = f * f;
  F32 p = splat(-0x1.081048p-3f);
  p = fma(p, f, splat(0x1.1e714ap-3f));
  p = fma(p, f, splat(-0x1.f30ccep-4f));
  p = fma(p, f, splat(0x1.1ed522p-3f));
  p = fma(p, f, splat(-0x1.559dfp-3f));
  p = fma(p, f, splat(0x1.99d044p-3f));
  p = fma(p, f, splat(-0x1.fffefp-3f));
  p = fma(p, f, splat(0x1.555506p-2f));
  p = fma(p, f, splat(-0.5f));
  p = fma(p, square, f);
  p = fma(k, splat(-0x1.05c61p-29f), p);
  p = fma(k, splat(0x1.62e43p-1f), p);
  p = x == infinity() ? x : p;
  p = x == 0.0f ? splat(-infinity()) : p;
  return x >= 0.0f ? p : splat(bitcast<float>(0x7fc00000));
}

// tanh(x) within 1 ulp (0.960), odd in x, signed zeros kept. A polynomial up to 1; beyond, 1 - 2 / (e^2|x| + 1), whose
// subtraction cancels little.
LAYERCAST_INLINE F32 tanh(F32 x) {
  const F32 magnitude = absolute(x);
  const F32 square = x * x;
  F32 p = splat(-0x1.cf4c4ep-16f);
  p = fma(p, square, splat(0x1.fa555ap-13f));
  p = fma(p, square, splat(-0x1.15207p-10f));
  p = fma(p, square, splat(0x1.aed54ap-9f));
  p = fma(p, square, splat(-0x1.1d73e2p-7f));
  p = fma(p, square, splat(0x1.65899ep-6f));
  p = fma(p, square, splat(-0x1.ba09fp-5f));
  p = fma(p, square, splat(0x1.1110acp-3f));
  p = fma(p, square, splat(-0x1.555554p-2f));
  const F32 near = fma(p * square, magnitude, magnitude);
  const F32 far = 1.0f - 2.0f / (exp(magnitude + magnitude) + 1.0f);
  const U32 sign = bitcast<U32>(x) & 0x80000000u;
  const F32 result = bitcast<F32>(bitcast<U32>(magnitude <= 1.0f ? near : far) | sign);
  return x != x ? x : result;
}

// value / (1 + e) for x >= 0 and value e / (1 + e) for x < 0, with e = (significand + low) * 2^exponent <= 1. The power
// of two comes last, so that no precision is lost where e itself would be subnormal; for x < 0 numerator, denominator
// and quotient each carry their rounding error, which would otherwise add up to 3 ulp. The value must be finite where x
// is negative.
LAYERCAST_INLINE F32 weigh_by_sigmoid(F32 value, F32 x, SplitExp e) {
  const F32 power = scale_by_power(e.significand, e.exponent);
  const F32 denominator = 1.0f + power;
  const F32 denominator_low = power - (denominator - 1.0f);
  const F32 numerator = value * e.significand;
  const F32 numerator_low = fma(value, e.significand, -numerator) + value * e.low;
  // One division serves both signs.
  const F32 quotient = (x < 0.0f ? numerator : value) / denominator;
  const F32 remainder = fma(-quotient, denominator, numerator) + (numerator_low - quotient * denominator_low);
  const F32 negative = scale_by_power(quotient + remainder / denominator, e.exponent);
  return x < 0.0f ? negative : quotient;
}

// x / (1 + e^-x) within 2 ulp (1.494), by e^-|x|. silu(-inf) = -0, silu(+inf) = +inf.
LAYERCAST_INLINE F32 silu(F32 x) {
  const F32 clamped = x < -120.0f ? splat(-120.0f) : x;
  F32 magnitude = absolute(clamped);
  magnitude = magnitude > 120.0f ? splat(120.0f) : magnitude;
  return weigh_by_sigmoid(clamped, clamped, split_exp(-magnitude));
}

// 1 / (1 + e^-x) within 2 ulp (1.499), by e^-|x|. sigmoid(-inf) = +0, sigmoid(+inf) = 1.
LAYERCAST_INLINE F32 sigmoid(F32 x) {
  F32 magnitude = absolute(x);
  magnitude = magnitude > 120.0f ? splat(120.0f) : magnitude;
  return weigh_by_sigmoid(splat(1.0f), x, split_exp(-magnitude));
}

// An unevaluated sum of a value and its rounding error.
struct Pair {
  F32 high, low;
};

LAYERCAST_INLINE Pair two_sum(F32 a, F32 b) {
  const F32 sum = a + b;
  const F32 part = sum - a;
  return {sum, (a - (sum - part)) + (b - part)};
}

LAYERCAST_INLINE Pair two_product(F32 a, F32 b) {
  const F32 product = a * b;
  return {product, fma(a, b, -product)};
}

// e^-(high + low) for 0 <= high <= 160 and a low below its last place.
LAYERCAST_INLINE SplitExp split_exp_of_negative(Pair x) {
  SplitExp e = split_exp(-x.high);
  e.low = e.low - e.significand * x.low;
  return e;
}

// x Phi(x), Phi being the normal distribution function, within 2 ulp (1.059). With t = |x|, Q(t) = 1 - Phi(t) is
// e^(-t^2/2) R(t), and (1 + 0.796875 t) R(t), which is flat at 0, a polynomial in (t - 3) / (t + 3); then x Q for x < 0
// and x (1 - Q) otherwise. gelu(-inf) = -0, gelu(+inf) = +inf.
LAYERCAST_INLINE F32 gelu(F32 x) {
  F32 t = absolute(x);
  t = t > 14.6f ? splat(14.6f) : t;
  const F32 u = (t - 3.0f) / (t + 3.0f);
  F32 p = splat(0x1.e91ea6p-17f);
  p = fma(p, u, splat(0x1.10d7d8p-14f));
  p = fma(p, u, splat(0x1.21f342p-16f));
  p = fma(p, u, splat(-0x1.90275p-12f));
  p = fma(p, u, splat(-0x1.6bf144p-12f));
  p = fma(p, u, splat(0x1.1fd09cp-9f));
  p = fma(p, u, splat(0x1.8ce108p-10f));
  p = fma(p, u, splat(-0x1.145848p-6f));
  p = fma(p, u, splat(0x1.b3dd02p-6f));
  p = fma(p, u, splat(0x1.871bbp-7f));
  p = fma(p, u, splat(-0x1.e6ca52p-4f));
  const F32 numerator = fma(p, u, splat(0x1.a5e57cp-2f));
  const F32 numerator_low = fma(p, u, 0x1.a5e57cp-2f - numerator) + 0x1.67c504p-28f;
  const Pair slope = two_product(t, splat(0.796875f));
  const Pair d = two_sum(splat(1.0f), slope.high);
  const F32 r = numerator / d.high;
  const F32 r_low = (fma(-r, d.high, numerator) + (numerator_low - r * (d.low + slope.low))) / d.high;
  const Pair square = two_product(t, t);
  const SplitExp e = split_exp_of_negative({0.5f * square.high, 0.5f * square.low});

  const Pair tr = two_product(t, r);
  const Pair tail = two_product(tr.high, e.significand);
  const F32 tail_low = tail.low + ((tr.low + t * r_low) * e.significand + tr.high * e.low);
  const F32 negative = -scale_by_power(tail.high + tail_low, e.exponent);

  const Pair product = two_product(r, e.significand);
  const F32 q = scale_by_power(product.high, e.exponent);
  const F32 q_low = scale_by_power(product.low + (r_low * e.significand + r * e.low), e.exponent);
  const F32 phi = 1.0f - q;
  const F32 phi_low = ((1.0f - phi) - q) - q_low;
  const F32 positive = fma(x, phi, x * phi_low);
  return x < 0.0f ? negative : x > 14.6f ? x : positive;
}

// x / (1 + e^(-2 z)), z = sqrt(2 / pi) (x + 0.044715 x^3), which is x (1 + tanh(z)) / 2, within 2 ulp (1.896): 2 z is
// carried with its rounding error, as e^(-2 z) magnifies it. gelu_tanh(-inf) = -0, gelu_tanh(+inf) = +inf.
LAYERCAST_INLINE F32 gelu_tanh(F32 x) {
  const F32 clamped = x < -11.5f ? splat(-11.5f) : x;
  F32 t = absolute(clamped);
  t = t > 11.5f ? splat(11.5f) : t;
  const Pair square = two_product(t, t);
  const Pair cubic = two_product(square.high, splat(0x1.2444f2p-4f));
  const F32 cubic_low = cubic.low + (square.low * 0x1.2444f2p-4f + square.high * 0x1.49b16ap-29f);
  const Pair factor = two_sum(splat(0x1.988454p+0f), cubic.high);
  const F32 factor_low = factor.low + (cubic_low - 0x1.857936p-25f);
  const Pair twice_z = two_product(t, factor.high);
  return weigh_by_sigmoid(clamped, clamped, split_exp_of_negative({twice_z.high, twice_z.low + t * factor_low}));
}

}  // namespace
}  // namespace layercast::LAYERCAST_ISA
