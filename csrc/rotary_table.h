// Rotary position tables: frequencies and angles in binary64, rounded once to binary32.
#pragma once

#include <cstdint>

namespace layercast {

// frequencies[i] = base^(-2 i / head_dim) within 1 ulp of binary64, for i in 0..head_dim / 2; base >= 1.
void rotary_frequencies(double base, int64_t head_dim, double* frequencies);

struct RotaryTableArgs {
  const int64_t* positions;   // (rows,), each |position| < 2^31
  const double* frequencies;  // (half,), each |position * frequency| < 2^31
  float* cos;                 // (rows, 2 * half): the second half of a row repeats the first
  float* sin;
  int64_t rows, half;
  double scaling;  // multiplies the binary64 cosine and sine
};

// Rows [begin, end) of cos and sin.
void rotary_table(const RotaryTableArgs& args, int64_t begin, int64_t end);

}  // namespace layercast
