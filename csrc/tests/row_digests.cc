// Digests of norms, softmax, dot and of what works element by element.
#include <bit>
#include <utility>

#include "digests.h"
#include "softmax.h"

namespace layercast::digests {
namespace {

constexpr Storage kStorages[] = {Storage::kFloat32, Storage::kBFloat16, Storage::kFloat16};

void norm_cases(const Kernels& kernels, const std::vector<float>& x, int64_t rows, int64_t n,
                const std::string& suffix) {
  std::vector<float> y(x.size());
  const auto wide = values(n, 2), bias = values(n, 2);
  for (const Storage storage : kStorages) {
    const auto weight = stored(wide, storage);
    for (const bool unit_offset : {false, true}) {
      const NormArgs norm = {x.data(), weight.data(), bias.data(), y.data(), rows,
                             n,        1e-6f,         unit_offset, storage,  Storage::kFloat32};
      const std::string name = "/" + std::to_string(static_cast<int>(storage)) + (unit_offset ? "/unit" : "") + suffix;
      kernels.rms_norm(norm, 0, rows);
      print_digest("rms_norm" + name, y);
      if (unit_offset) continue;
      kernels.layer_norm(norm, 0, rows);
      print_digest("layer_norm" + name, y);
    }
  }
}

// Threads share out the rows of the first, the shards of the second.
void softmax_cases(const std::vector<float>& x, int64_t rows, int64_t n, const std::string& suffix) {
  std::vector<float> y(x.size());
  for (const int threads : {1, kThreads}) {
    const RowArgs row = {x.data(), y.data(), rows, n};
    softmax(row, threads);
    print_digest("softmax/" + std::to_string(threads) + suffix, y);
    log_softmax(row, threads);
    print_digest("log_softmax/" + std::to_string(threads) + suffix, y);
  }
}

}  // namespace

void row_cases(const Kernels& kernels) {
  for (const int64_t n : {1, 15, 64, 130, 1000, 5003, 20011}) {
    const int64_t rows = n > 16384 ? 1 : 5;
    for (const bool any : {false, true}) {
      seed(static_cast<uint64_t>(n));
      const auto x = any ? patterns(rows * n) : values(rows * n, 5);
      const auto weight = values(n, 2);
      const std::string suffix = "/" + std::to_string(n) + (any ? "/any" : "");
      norm_cases(kernels, x, rows, n, suffix);
      softmax_cases(x, rows, n, suffix);
      std::vector<float> sums(rows);
      kernels.dot({x.data(), weight.data(), sums.data(), rows, n, 0}, 0, rows);
      print_digest("dot" + suffix, sums);
    }
  }
}

void elementwise_cases(const Kernels& kernels) {
  std::vector<float> x;
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 40009)
    x.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  std::vector<float> y(x.size());
  const ElementwiseArgs args = {x.data(), y.data(), static_cast<int64_t>(x.size())};
  const std::pair<const char*, void (*)(const ElementwiseArgs&, int64_t, int64_t)> functions[] = {
      {"exp", kernels.exp},         {"log", kernels.log},   {"tanh", kernels.tanh},          {"silu", kernels.silu},
      {"sigmoid", kernels.sigmoid}, {"gelu", kernels.gelu}, {"gelu_tanh", kernels.gelu_tanh}};
  for (const auto& [name, function] : functions) {
    function(args, 0, args.n);
    print_digest(name, y);
  }
  // Both halves of fused rows, in two ranges that cut a row.
  constexpr int64_t kRows = 7, kN = 133;
  seed(11);
  const auto fused = patterns(kRows * 2 * kN);
  std::vector<float> product(kRows * kN);
  const GatedArgs gated = {fused.data(), fused.data() + kN, product.data(), kRows, kN, 2 * kN, 2 * kN};
  const std::pair<const char*, void (*)(const GatedArgs&, int64_t, int64_t)> gates[] = {
      {"silu_mul", kernels.silu_mul}, {"gelu_mul", kernels.gelu_mul}, {"gelu_tanh_mul", kernels.gelu_tanh_mul}};
  for (const auto& [name, function] : gates) {
    function(gated, 0, 300);
    function(gated, 300, kRows * kN);
    print_digest(name, product);
  }
}

}  // namespace layercast::digests
