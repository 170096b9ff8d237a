// Mixture of experts: which experts a token goes to, and the weighted sum of their outputs.
#pragma once

#include "kernels.h"

namespace layercast {

struct RouteArgs {
  const float* logits;             // (tokens, experts), contiguous
  float* weights;                  // (tokens, top_k)
  int64_t* indices;                // (tokens, top_k)
  int64_t tokens, experts, top_k;  // 1 <= top_k <= experts
  bool renormalize;
};

// p = softmax(logits); the top_k largest, equals by the lower index; with `renormalize` divided by their sum, a chain
// in that order from +0.
void route(const RouteArgs& args, int threads);

struct ExpertsArgs {
  const float* x;          // (tokens, hidden), contiguous
  const void* gate_up;     // (experts, 2 * intermediate, hidden): rows ld_gate_up, experts stride_gate_up apart
  const void* down;        // (experts, hidden, intermediate), likewise
  const int64_t* indices;  // (tokens, top_k), contiguous
  const float* weights;    // (tokens, top_k), contiguous
  float* y;                // (tokens, hidden), contiguous
  int64_t tokens, top_k, experts, hidden, intermediate;
  int64_t ld_gate_up, stride_gate_up, ld_down, stride_down;
  Storage gate_up_storage, down_storage;
  void (*activation)(const GatedArgs&, int64_t begin, int64_t end);  // of the active kernels
};

enum class ExpertsError : int { kNone = 0, kIndexOutOfRange = 1, kExpertTwice = 2 };

// For each token, from +0 and by ascending expert e among its indices: y = y + (weight_e * out_e), with
// out_e = linear(activation(gate) * up, down_e) and gate, up the halves of linear(x, gate_up_e). An expert no token
// names is not read. Nothing is computed where an error is returned.
ExpertsError experts(const ExpertsArgs& args, int threads);

}  // namespace layercast
