#include "experts.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "dispatch.h"
#include "float_control.h"
#include "grain.h"
#include "run_linear.h"
#include "selection.h"
#include "threads.h"

namespace layercast {
namespace {

// The tokens of each expert, ascending, and where each one's weight lies.
struct Assignment {
  std::vector<int64_t> offsets;  // (experts + 1,)
  std::vector<int64_t> tokens;
  std::vector<float> weights;
};

ExpertsError assign(const ExpertsArgs& args, Assignment& found) {
  const int64_t count = args.tokens * args.top_k;
  found.offsets.assign(static_cast<size_t>(args.experts) + 1, 0);
  for (int64_t i = 0; i < count; ++i) {
    if (args.indices[i] < 0 || args.indices[i] >= args.experts) return ExpertsError::kIndexOutOfRange;
    ++found.offsets[args.indices[i] + 1];
  }
  for (int64_t e = 0; e < args.experts; ++e) found.offsets[e + 1] += found.offsets[e];
  found.tokens.resize(static_cast<size_t>(count));
  found.weights.resize(static_cast<size_t>(count));
  std::vector<int64_t> next(found.offsets.begin(), found.offsets.end() - 1);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t e = args.indices[i], at = next[e]++, token = i / args.top_k;
    if (at > found.offsets[e] && found.tokens[at - 1] == token) return ExpertsError::kExpertTwice;
    found.tokens[at] = token;
    found.weights[at] = args.weights[i];
  }
  return ExpertsError::kNone;
}

const void* at(const void* base, int64_t elements, Storage storage) {
  return static_cast<const char*>(base) + elements * (storage == Storage::kFloat32 ? 4 : 2);
}

// What passes between an expert's steps, for the most tokens that any expert has.
struct Buffers {
  std::unique_ptr<float[]> x, gate_up, gated, out;

  Buffers(int64_t rows, int64_t hidden, int64_t intermediate)
      : x(allocate(rows * hidden)),
        gate_up(allocate(rows * 2 * intermediate)),
        gated(allocate(rows * intermediate)),
        out(allocate(rows * hidden)) {}

  static std::unique_ptr<float[]> allocate(int64_t count) {
    return std::unique_ptr<float[]>(new float[static_cast<size_t>(count)]);
  }
};

void add_expert(const Kernels& kernels, const ExpertsArgs& args, const Assignment& assigned, int64_t e,
                const Buffers& buffers, int threads) {
  const int64_t first = assigned.offsets[e], M = assigned.offsets[e + 1] - first;
  const int64_t H = args.hidden, I = args.intermediate;
  const int64_t* tokens = assigned.tokens.data() + first;
  const float* x = args.x;
  if (M < args.tokens) {
    for (int64_t i = 0; i < M; ++i) {
      std::memcpy(buffers.x.get() + i * H, args.x + tokens[i] * H, sizeof(float) * static_cast<size_t>(H));
    }
    x = buffers.x.get();
  }
  const LinearArgs gate_up = {.x = x,
                              .weight = at(args.gate_up, e * args.stride_gate_up, args.gate_up_storage),
                              .bias = nullptr,
                              .y = buffers.gate_up.get(),
                              .M = M,
                              .N = 2 * I,
                              .K = H,
                              .ldx = H,
                              .ldw = args.ld_gate_up,
                              .weight_storage = args.gate_up_storage,
                              .bias_storage = Storage::kFloat32};
  run_linear(kernels, gate_up, threads);
  const GatedArgs gated = {.gate = buffers.gate_up.get(),
                           .up = buffers.gate_up.get() + I,
                           .y = buffers.gated.get(),
                           .rows = M,
                           .n = I,
                           .ld_gate = 2 * I,
                           .ld_up = 2 * I};
  parallel_for(threads, M * I, grain_of(4), [&](int64_t begin, int64_t end) { args.activation(gated, begin, end); });
  const LinearArgs down = {.x = buffers.gated.get(),
                           .weight = at(args.down, e * args.stride_down, args.down_storage),
                           .bias = nullptr,
                           .y = buffers.out.get(),
                           .M = M,
                           .N = H,
                           .K = I,
                           .ldx = I,
                           .ldw = args.ld_down,
                           .weight_storage = args.down_storage,
                           .bias_storage = Storage::kFloat32};
  run_linear(kernels, down, threads);
  const ExpertSumArgs sum = {.x = buffers.out.get(),
                             .tokens = tokens,
                             .weights = assigned.weights.data() + first,
                             .y = args.y,
                             .count = M,
                             .n = H};
  parallel_for(threads, M, grain_of(H), [&](int64_t begin, int64_t end) { kernels.expert_sum(sum, begin, end); });
}

}  // namespace

void route(const RouteArgs& args, int threads) {
  const Kernels& kernels = active_kernels();
  parallel_for(threads, args.tokens, grain_of(32 * args.experts), [&](int64_t begin, int64_t end) {
    std::vector<float> p(static_cast<size_t>(args.experts));
    std::vector<uint64_t> keys;
    for (int64_t token = begin; token < end; ++token) {
      const RowArgs row = {.x = args.logits + token * args.experts, .y = p.data(), .rows = 1, .n = args.experts};
      kernels.softmax(row, 0, 1);
      largest_keys(p.data(), args.experts, args.top_k, nullptr, keys);
      float* weights = args.weights + token * args.top_k;
      float total = 0.0f;
      for (int64_t j = 0; j < args.top_k; ++j) {
        args.indices[token * args.top_k + j] = index_of(keys[j]);
        weights[j] = p[index_of(keys[j])];
        total += weights[j];
      }
      for (int64_t j = 0; args.renormalize && j < args.top_k; ++j) weights[j] = weights[j] / total;
    }
  });
}

ExpertsError experts(const ExpertsArgs& args, int threads) {
  Assignment assigned;
  if (const ExpertsError error = assign(args, assigned); error != ExpertsError::kNone) return error;
  std::memset(args.y, 0, sizeof(float) * static_cast<size_t>(args.tokens * args.hidden));
  int64_t most = 0;
  for (int64_t e = 0; e < args.experts; ++e) most = std::max(most, assigned.offsets[e + 1] - assigned.offsets[e]);
  const Buffers buffers(most, args.hidden, args.intermediate);
  for (int64_t e = 0; e < args.experts; ++e) {
    if (assigned.offsets[e + 1] > assigned.offsets[e]) {
      add_expert(active_kernels(), args, assigned, e, buffers, threads);
    }
  }
  return ExpertsError::kNone;
}

}  // namespace layercast
