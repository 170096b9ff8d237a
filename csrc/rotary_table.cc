// One copy serves every instruction set: only + - * / on binary64, each rounded once, no fused operation.
#include "rotary_table.h"

#include <cstring>

namespace layercast {
namespace {

// An unevaluated sum hi + lo, |lo| <= ulp(hi) / 2 or so.
struct Pair {
  double hi, lo;
};

// hi + lo = a + b exactly (Knuth).
Pair two_sum(double a, double b) {
  const double sum = a + b;
  const double part = sum - a;
  return {sum, (a - (sum - part)) + (b - part)};
}

// a = high + low with 26 bits each (Veltkamp); |a| < 2^995.
Pair split(double a) {
  const double scaled = 134217729.0 * a;
  const double high = scaled - (scaled - a);
  return {high, a - high};
}

// hi + lo = a * b exactly (Dekker).
Pair two_product(double a, double b) {
  const double product = a * b;
  const Pair x = split(a), y = split(b);
  return {product, ((x.hi * y.hi - product) + x.hi * y.lo + x.lo * y.hi) + x.lo * y.lo};
}

constexpr double kLog2High = 0x1.62e42fefa3p-1;  // 41 bits of log 2: its multiples by an exponent are exact
constexpr double kLog2Low = 0x1.3de6af278ece6p-42;

// floor(v) for |v| < 2^52, without libm.
double floor_of(double v) {
  const auto truncated = static_cast<double>(static_cast<int64_t>(v));
  return truncated > v ? truncated - 1.0 : truncated;
}

template <int kCount>
double polynomial(double x, const double (&coefficients)[kCount]) {
  double p = coefficients[kCount - 1];
  for (int i = kCount - 2; i >= 0; --i) p = p * x + coefficients[i];
  return p;
}

// log(x) to about 60 bits, for normal x > 0: 2 atanh((m - 1) / (m + 1)) with x = m * 2^e.
Pair log_pair(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  int64_t exponent = static_cast<int64_t>(bits >> 52) - 1023;
  bits = (bits & 0x000fffffffffffffull) | 0x3ff0000000000000ull;
  double m;
  memcpy(&m, &bits, sizeof m);
  if (m > 0x1.6a09e667f3bcdp+0) {
    m = m * 0.5;
    exponent += 1;
  }
  const double numerator = m - 1.0;
  const Pair denominator = two_sum(m, 1.0);
  const double z = numerator / denominator.hi;
  const Pair back = two_product(z, denominator.hi);
  const double z_low = (((numerator - back.hi) - back.lo) - z * denominator.lo) / denominator.hi;
  static constexpr double kOdd[] = {
      0x1.5555555555555p-1, 0x1.999999999999ap-2, 0x1.2492492492492p-2, 0x1.c71c71c71c71cp-3,
      0x1.745d1745d1746p-3, 0x1.3b13b13b13b14p-3, 0x1.1111111111111p-3, 0x1.e1e1e1e1e1e1ep-4,
      0x1.af286bca1af28p-4, 0x1.8618618618618p-4, 0x1.642c8590b2164p-4, 0x1.47ae147ae147bp-4,
  };
  const double square = z * z;
  const double tail = z * square * polynomial(square, kOdd);
  const auto count = static_cast<double>(exponent);
  const Pair sum = two_sum(count * kLog2High, 2.0 * z);
  return two_sum(sum.hi, sum.lo + (count * kLog2Low + (2.0 * z_low + tail)));
}

// e^-(t.hi + t.lo) within 1 ulp, 0 <= t < 700.
double exp_of_negative(Pair t) {
  const double n = floor_of(t.hi * 0x1.71547652b82fep+0 + 0.5);
  const Pair r = two_sum(n * kLog2High - t.hi, n * kLog2Low - t.lo);
  static constexpr double kInverseFactorials[] = {
      0x1p-1,
      0x1.5555555555555p-3,
      0x1.5555555555555p-5,
      0x1.1111111111111p-7,
      0x1.6c16c16c16c17p-10,
      0x1.a01a01a01a01ap-13,
      0x1.a01a01a01a01ap-16,
      0x1.71de3a556c734p-19,
      0x1.27e4fb7789f5cp-22,
      0x1.ae64567f544e4p-26,
      0x1.1eed8eff8d898p-29,
      0x1.6124613a86d09p-33,
      0x1.93974a8c07c9dp-37,
  };
  const double rest = (r.lo + r.lo * r.hi) + (r.hi * r.hi) * polynomial(r.hi, kInverseFactorials);
  const Pair sum = two_sum(1.0, r.hi);
  const double value = sum.hi + (sum.lo + rest);
  const uint64_t bits = static_cast<uint64_t>(1023 - static_cast<int64_t>(n)) << 52;
  double power;
  memcpy(&power, &bits, sizeof power);
  return value * power;
}

struct SinCos {
  double sin, cos;
};

// The angle is the exact product. Its multiple of pi / 2 is taken off in three pieces of 22 bits, each product with a
// count below 2^31 exact, and a binary64 remainder: the reduced angle is good to 2^-53 of itself, and sine and cosine
// to 2^-51, so their rounding to binary32 is the nearest value but where a tie is closer than that.
SinCos sin_cos(double position, double frequency) {
  const Pair angle = two_product(position, frequency);
  const double n = floor_of(angle.hi * 0x1.45f306dc9c883p-1 + 0.5);
  const Pair first = two_sum(angle.hi - n * 0x1.921fbp+0, -(n * 0x1.5110bp-22));
  const Pair second = two_sum(first.hi, -(n * 0x1.184698p-44));
  const double r = second.hi + (((second.lo + first.lo) + angle.lo) - n * 0x1.3198a2e037073p-69);
  static constexpr double kSin[] = {
      -0x1.5555555555555p-3,  0x1.1111111111111p-7,  -0x1.a01a01a01a01ap-13, 0x1.71de3a556c734p-19,
      -0x1.ae64567f544e4p-26, 0x1.6124613a86d09p-33, -0x1.ae7f3e733b81fp-41, 0x1.952c77030ad4ap-49,
  };
  static constexpr double kCos[] = {
      0x1.5555555555555p-5,  -0x1.6c16c16c16c17p-10, 0x1.a01a01a01a01ap-16, -0x1.27e4fb7789f5cp-22,
      0x1.1eed8eff8d898p-29, -0x1.93974a8c07c9dp-37, 0x1.ae7f3e733b81fp-45, -0x1.6827863b97d97p-53,
  };
  const double square = r * r;
  const double sin = r + r * square * polynomial(square, kSin);
  const double cos = 1.0 - (0.5 * square - square * square * polynomial(square, kCos));
  switch (static_cast<int64_t>(n) & 3) {
    case 0:
      return {sin, cos};
    case 1:
      return {cos, -sin};
    case 2:
      return {-sin, -cos};
    default:
      return {-cos, sin};
  }
}

}  // namespace

void rotary_frequencies(double base, int64_t head_dim, double* frequencies) {
  const Pair log_base = log_pair(base);
  for (int64_t i = 0; i < head_dim / 2; ++i) {
    // log(base) * 2i / head_dim, carried to about 60 bits so that e^-t keeps its last one.
    const Pair product = two_product(log_base.hi, static_cast<double>(2 * i));
    const double product_low = product.lo + log_base.lo * static_cast<double>(2 * i);
    const auto divisor = static_cast<double>(head_dim);
    const double quotient = product.hi / divisor;
    const Pair back = two_product(quotient, divisor);
    frequencies[i] = exp_of_negative({quotient, (((product.hi - back.hi) - back.lo) + product_low) / divisor});
  }
}

void rotary_table(const RotaryTableArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    float* cos = args.cos + row * 2 * args.half;
    float* sin = args.sin + row * 2 * args.half;
    const auto position = static_cast<double>(args.positions[row]);
    for (int64_t i = 0; i < args.half; ++i) {
      const SinCos value = sin_cos(position, args.frequencies[i]);
      cos[i] = cos[args.half + i] = static_cast<float>(value.cos * args.scaling);
      sin[i] = sin[args.half + i] = static_cast<float>(value.sin * args.scaling);
    }
  }
}

}  // namespace layercast
