// Digests of choices: largest elements, drawn tokens, experts and their sums.
#include "digests.h"
#include "experts.h"
#include "sampling.h"
#include "selection.h"

namespace layercast::digests {
namespace {

void largest_cases(const std::vector<float>& x, int64_t rows, int64_t n, int threads, const std::string& suffix) {
  std::vector<int64_t> indices(rows);
  argmax({x.data(), indices.data(), rows, n}, threads);
  print_digest("argmax" + suffix, indices);
  for (const int64_t k : {int64_t{1}, int64_t{7}, int64_t{50}, n}) {
    if (k > n) continue;
    std::vector<float> top_values(rows * k);
    std::vector<int64_t> top_indices(rows * k);
    topk({x.data(), top_values.data(), top_indices.data(), rows, n, k}, threads);
    print_digest("topk/values/" + std::to_string(k) + suffix, top_values);
    print_digest("topk/indices/" + std::to_string(k) + suffix, top_indices);
  }
}

void sample_cases(const std::vector<float>& logits, int64_t rows, int64_t n, int threads, const std::string& suffix) {
  constexpr uint64_t kOne = uint64_t{1} << 32;
  const struct {
    const char* name;
    int64_t top_k;
    uint64_t top_p, min_p;
  } settings[] = {{"all", n, kOne, 0},
                  {"top_k", 5, kOne, 0},
                  {"top_p", n, kOne / 10 * 9, 0},
                  {"min_p", n, kOne, kOne / 100},
                  {"each", 40, kOne / 2, kOne / 1000}};
  std::vector<int64_t> keys(rows), positions(rows), tokens(rows);
  for (int64_t row = 0; row < rows; ++row) {
    keys[row] = static_cast<int64_t>(random_bits());
    positions[row] = row;
  }
  for (const auto& [name, top_k, top_p, min_p] : settings) {
    const SampleArgs args = {.logits = logits.data(),
                             .sequence_keys = keys.data(),
                             .positions = positions.data(),
                             .tokens = tokens.data(),
                             .rows = rows,
                             .n = n,
                             .temperature = 0.7f,
                             .top_k = top_k < n ? top_k : n,
                             .top_p = top_p,
                             .min_p = min_p,
                             .seed = 42};
    sample(args, threads);
    print_digest("sample/" + std::string(name) + suffix, tokens);
  }
}

void experts_case(const Kernels& kernels, Storage storage, const std::vector<float>& weights,
                  const std::vector<int64_t>& indices, int64_t tokens, int64_t top_k) {
  constexpr int64_t kExperts = 6, kHidden = 70, kIntermediate = 37;
  const auto x = values(tokens * kHidden, 4);
  const auto gate_up = stored(values(kExperts * 2 * kIntermediate * kHidden, 4), storage);
  const auto down = stored(values(kExperts * kHidden * kIntermediate, 4), storage);
  std::vector<float> y(tokens * kHidden);
  const ExpertsArgs args = {.x = x.data(),
                            .gate_up = gate_up.data(),
                            .down = down.data(),
                            .indices = indices.data(),
                            .weights = weights.data(),
                            .y = y.data(),
                            .tokens = tokens,
                            .top_k = top_k,
                            .experts = kExperts,
                            .hidden = kHidden,
                            .intermediate = kIntermediate,
                            .ld_gate_up = kHidden,
                            .stride_gate_up = 2 * kIntermediate * kHidden,
                            .ld_down = kIntermediate,
                            .stride_down = kHidden * kIntermediate,
                            .gate_up_storage = storage,
                            .down_storage = storage,
                            .activation = kernels.silu_mul};
  const auto error = static_cast<int>(experts(args, kThreads));
  print_digest("experts/" + std::to_string(static_cast<int>(storage)) + "/error=" + std::to_string(error), y);
}

}  // namespace

void selection_cases() {
  for (const int64_t n : {1, 15, 128, 130, 5003, 20011}) {
    for (const int threads : {1, kThreads}) {
      seed(static_cast<uint64_t>(n));
      const int64_t rows = n > 16384 ? 1 : 5;
      const std::string suffix = "/" + std::to_string(n) + "/" + std::to_string(threads);
      largest_cases(patterns(rows * n), rows, n, threads, suffix + "/any");
      const auto x = values(rows * n, 2);
      largest_cases(x, rows, n, threads, suffix);
      sample_cases(x, rows, n, threads, suffix);
    }
  }
}

void expert_cases(const Kernels& kernels) {
  constexpr int64_t kTokens = 9, kExperts = 6, kTopK = 3;
  seed(13);
  const auto logits = values(kTokens * kExperts, 1);
  std::vector<float> weights(kTokens * kTopK);
  std::vector<int64_t> indices(kTokens * kTopK);
  for (const bool renormalize : {false, true}) {
    route({logits.data(), weights.data(), indices.data(), kTokens, kExperts, kTopK, renormalize}, kThreads);
    print_digest(renormalize ? "route/weights/renormalized" : "route/weights", weights);
    print_digest("route/indices", indices);
  }
  for (const Storage storage : {Storage::kFloat32, Storage::kBFloat16, Storage::kFloat16}) {
    experts_case(kernels, storage, weights, indices, kTokens, kTopK);
  }
}

}  // namespace layercast::digests
