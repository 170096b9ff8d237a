// The largest error of an elementwise function over float32 inputs, against binary64 libm.
//
// usage: exhaustive FUNCTION [STRIDE]
// Visits every STRIDE-th bit pattern (1: all 2^32) through the active kernels and prints one line:
//   FUNCTION max_ulp=0.512 at=0x3f800000 wrong_specials=0
// An error is |result - reference| in units of the last place of the correctly rounded result, subnormals included;
// libm's own error in binary64 is below 1e-8 of that. Specials are results that are, or should be, not finite, and
// zeros, whose sign counts.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "dispatch.h"
#include "float_control.h"

namespace {

using layercast::ElementwiseArgs;
using layercast::Kernels;

struct Function {
  const char* name;
  void (*Kernels::*kernel)(const ElementwiseArgs&, int64_t, int64_t);
  double (*reference)(double);
};

// The limits at -inf are -0; everything else is the textbook formula, in binary64 without cancellation.
double gelu(double x) { return std::isinf(x) && x < 0 ? -0.0 : 0.5 * x * std::erfc(-x * 0.70710678118654752440); }
double gelu_tanh(double x) {
  const double twice_z = 1.5957691216057307117 * (x + 0.044715 * x * x * x);
  return std::isinf(x) && x < 0 ? -0.0 : x / (1.0 + std::exp(-twice_z));
}
double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
double silu(double x) { return std::isinf(x) && x < 0 ? -0.0 : x / (1.0 + std::exp(-x)); }

constexpr Function kFunctions[] = {
    {"exp", &Kernels::exp, [](double x) { return std::exp(x); }},
    {"log", &Kernels::log, [](double x) { return std::log(x); }},
    {"tanh", &Kernels::tanh, [](double x) { return std::tanh(x); }},
    {"silu", &Kernels::silu, silu},
    {"sigmoid", &Kernels::sigmoid, sigmoid},
    {"gelu", &Kernels::gelu, gelu},
    {"gelu_tanh", &Kernels::gelu_tanh, gelu_tanh},
};

struct Worst {
  double ulps = 0.0;
  uint32_t input = 0;
  int64_t wrong_specials = 0;
  uint32_t wrong_input = 0;
};

// The spacing of float32 values just at `rounded`.
double ulp_of(float rounded) {
  const int exponent = std::ilogb(rounded);
  return std::ldexp(1.0, (exponent < -126 ? -126 : exponent) - 23);
}

void compare(uint32_t input, float result, double exact, Worst& worst) {
  const auto rounded = static_cast<float>(exact);
  if (!std::isfinite(rounded) || !std::isfinite(result) || rounded == 0.0f || result == 0.0f) {
    // A zero and the smallest subnormal, the largest float and infinity, are neighbours: their distance still counts.
    const bool exact_special = std::isnan(rounded)
                                   ? std::bit_cast<uint32_t>(result) == 0x7fc00000u
                                   : std::bit_cast<uint32_t>(result) == std::bit_cast<uint32_t>(rounded);
    if (exact_special) return;
    const bool finite = std::isfinite(result) && std::isfinite(exact) && std::signbit(result) == std::signbit(exact);
    if (!finite || std::fabs(result - exact) > 0x1p-149) {
      worst.wrong_specials += 1;
      worst.wrong_input = input;
    }
    return;
  }
  const double error = std::fabs(result - exact) / ulp_of(rounded);
  if (error > worst.ulps) {
    worst.ulps = error;
    worst.input = input;
  }
}

Worst visit(const Function& function, uint64_t begin, uint64_t end, uint64_t stride) {
  constexpr size_t kBatch = 4096;
  const layercast::FloatControl control;
  const Kernels& kernels = layercast::active_kernels();
  std::vector<float> x(kBatch), y(kBatch);
  Worst worst;
  for (uint64_t bits = begin; bits < end;) {
    size_t count = 0;
    for (; count < kBatch && bits < end; bits += stride) x[count++] = std::bit_cast<float>(static_cast<uint32_t>(bits));
    (kernels.*function.kernel)({x.data(), y.data(), static_cast<int64_t>(count)}, 0, static_cast<int64_t>(count));
    for (size_t i = 0; i < count; ++i) {
      compare(std::bit_cast<uint32_t>(x[i]), y[i], function.reference(static_cast<double>(x[i])), worst);
    }
  }
  return worst;
}

}  // namespace

int main(int argc, char** argv) {
  const Function* function = nullptr;
  for (const Function& candidate : kFunctions) {
    if (argc > 1 && std::strcmp(argv[1], candidate.name) == 0) function = &candidate;
  }
  if (function == nullptr) {
    std::fprintf(stderr, "usage: exhaustive FUNCTION [STRIDE]\n");
    return 2;
  }
  const uint64_t stride = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  const uint64_t parts = std::thread::hardware_concurrency() > 0 ? std::thread::hardware_concurrency() : 1;
  const uint64_t span = (uint64_t{1} << 32) / parts / stride * stride;
  std::vector<Worst> found(parts);
  std::vector<std::thread> threads;
  for (uint64_t part = 0; part < parts; ++part) {
    threads.emplace_back([&, part] {
      found[part] = visit(*function, part * span, part + 1 == parts ? uint64_t{1} << 32 : (part + 1) * span, stride);
    });
  }
  for (std::thread& thread : threads) thread.join();
  Worst worst;
  for (const Worst& one : found) {
    worst.wrong_specials += one.wrong_specials;
    if (one.wrong_specials > 0) worst.wrong_input = one.wrong_input;
    if (one.ulps > worst.ulps) {
      worst.ulps = one.ulps;
      worst.input = one.input;
    }
  }
  std::printf("%s max_ulp=%.6f at=0x%08x wrong_specials=%lld", function->name, worst.ulps, worst.input,
              static_cast<long long>(worst.wrong_specials));
  if (worst.wrong_specials > 0) std::printf(" first_wrong=0x%08x", worst.wrong_input);
  std::printf("\n");
  return 0;
}
