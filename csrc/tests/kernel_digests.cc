// One digest per case of every kernel over a fixed set of inputs, for one instruction set.
//
// usage: kernel_digests [ISA]
// Prints the instruction sets it has on the first line ("isas avx512 avx2 scalar"), then "CASE DIGEST" lines for the
// one named, or the best. Equal lines are equal bits: between instruction sets, between processors, and between a
// build with sanitizers and one without. Inputs come from integers alone, so that they are the same everywhere.
#include <bit>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "dispatch.h"
#include "experts.h"
#include "key_blocks.h"
#include "rotary_table.h"
#include "run_linear.h"
#include "sampling.h"
#include "selection.h"
#include "softmax.h"
#include "threads.h"

namespace {

using namespace layercast;

constexpr int kThreads = 2;
uint64_t state = 0;

// SplitMix64.
uint64_t random_bits() {
  uint64_t z = (state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// Values whose sums show their order: random significands, exponents within +-`spread` of 1.
std::vector<float> values(size_t count, int spread) {
  std::vector<float> v(count);
  for (float& x : v) {
    const uint64_t r = random_bits();
    const auto exponent = static_cast<uint32_t>(127 - spread + static_cast<int>((r >> 40) % (2 * spread + 1)));
    x = std::bit_cast<float>(static_cast<uint32_t>(r & 0x807fffffu) | (exponent << 23));
  }
  return v;
}

// Any pattern at all: subnormals, infinities and NaN.
std::vector<float> patterns(size_t count) {
  std::vector<float> v(count);
  for (float& x : v) x = std::bit_cast<float>(static_cast<uint32_t>(random_bits()));
  return v;
}

// FNV-1a over the bytes.
void print_digest(const std::string& name, const void* data, size_t bytes) {
  uint64_t digest = 0xcbf29ce484222325u;
  for (size_t i = 0; i < bytes; ++i) digest = (digest ^ static_cast<const uint8_t*>(data)[i]) * 0x100000001b3u;
  std::printf("%s %016llx\n", name.c_str(), static_cast<unsigned long long>(digest));
}

template <class T>
void print_digest(const std::string& name, const std::vector<T>& v) {
  print_digest(name, v.data(), v.size() * sizeof(T));
}

void linear_cases(const Kernels& kernels) {
  constexpr int64_t kShapes[][3] = {{1, 33, 200},  {4, 64, 64}, {5, 31, 130}, {13, 100, 777}, {101, 150, 301},
                                    {600, 70, 90}, {1, 1, 3},   {3, 7, 0},    {2, 40, 1000}};
  for (const Storage storage : {Storage::kFloat32, Storage::kBFloat16, Storage::kFloat16}) {
    for (const auto& [M, N, K] : kShapes) {
      for (const bool any : {false, true}) {
        state = static_cast<uint64_t>(M * 1000003 + N * 1009 + K);
        const auto x = any ? patterns(M * K) : values(M * K, 12);
        const auto wide = any ? patterns(N * K) : values(N * K, 12);
        std::vector<uint16_t> half(N * K);
        for (size_t i = 0; i < half.size(); ++i) {
          const auto bits = std::bit_cast<uint32_t>(wide[i]);
          // bfloat16: the upper half. binary16: a word with an exponent of its own.
          half[i] = static_cast<uint16_t>(storage == Storage::kBFloat16 ? bits >> 16 : bits >> 9);
        }
        const auto bias = values(N, 3);
        std::vector<float> y(M * N);
        const void* weight = storage == Storage::kFloat32 ? static_cast<const void*>(wide.data()) : half.data();
        const LinearArgs args = {x.data(), weight, bias.data(), y.data(), M, N, K, K, K, storage, Storage::kFloat32};
        run_linear(kernels, args, kThreads);
        print_digest("linear/" + std::to_string(static_cast<int>(storage)) + "/" + std::to_string(M) + "x" +
                         std::to_string(N) + "x" + std::to_string(K) + (any ? "/any" : ""),
                     y);
      }
    }
  }
}

void row_cases(const Kernels& kernels) {
  for (const int64_t n : {1, 15, 64, 130, 1000, 5003}) {
    for (const bool any : {false, true}) {
      state = static_cast<uint64_t>(n);
      constexpr int64_t kRows = 5;
      const auto x = any ? patterns(kRows * n) : values(kRows * n, 5);
      const auto weight = values(n, 2);
      std::vector<float> y(kRows * n), sums(kRows);
      std::vector<int64_t> indices(kRows);
      const std::string suffix = "/" + std::to_string(n) + (any ? "/any" : "");
      const NormArgs norm = {x.data(), weight.data(), weight.data(), y.data(),          kRows,
                             n,        1e-6f,         true,          Storage::kFloat32, Storage::kFloat32};
      kernels.rms_norm(norm, 0, kRows);
      print_digest("rms_norm" + suffix, y);
      kernels.layer_norm(norm, 0, kRows);
      print_digest("layer_norm" + suffix, y);
      const RowArgs row = {x.data(), y.data(), kRows, n};
      softmax(row, 1);
      print_digest("softmax" + suffix, y);
      log_softmax(row, 1);
      print_digest("log_softmax" + suffix, y);
      kernels.dot({x.data(), weight.data(), sums.data(), kRows, n, 0}, 0, kRows);
      print_digest("dot" + suffix, sums);
      argmax({x.data(), indices.data(), kRows, n}, kThreads);
      print_digest("argmax" + suffix, indices);
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
      {"exp", kernels.exp},   {"log", kernels.log},   {"tanh", kernels.tanh},
      {"silu", kernels.silu}, {"gelu", kernels.gelu}, {"gelu_tanh", kernels.gelu_tanh}};
  for (const auto& [name, function] : functions) {
    function(args, 0, args.n);
    print_digest(name, y);
  }
}

void rotary_cases(const Kernels& kernels) {
  constexpr int64_t kT = 7, kHalf = 17, kR = 2 * kHalf, kD = 40;
  std::vector<double> frequencies(kHalf);
  rotary_frequencies(500000.0, kR, frequencies.data());
  print_digest("rotary_frequencies", frequencies);
  const std::vector<int64_t> positions = {0, 1, 2, 511, 32000, 131071, 2147483647};
  std::vector<float> cos(kT * kR), sin(kT * kR), y(3 * kT * kD);
  rotary_table({positions.data(), frequencies.data(), cos.data(), sin.data(), kT, kHalf, 1.0}, 0, kT);
  print_digest("rotary_table/cos", cos);
  print_digest("rotary_table/sin", sin);
  state = 5;
  const auto x = values(3 * kT * kD, 4);
  kernels.rotary({x.data(), cos.data(), sin.data(), y.data(), 1, 3, kT, kD, kR, 3 * kT * kD, kT * kD, kD}, 0, 3 * kT);
  print_digest("rotary", y);
}

void embedding_cases(const Kernels& kernels) {
  state = 8;
  const auto weight = patterns(9 * 37);
  const std::vector<int64_t> ids = {0, 8, 3, 3};
  for (const Storage storage : {Storage::kFloat32, Storage::kBFloat16, Storage::kFloat16}) {
    std::vector<float> y(ids.size() * 37);
    kernels.embedding({ids.data(), weight.data(), y.data(), 4, 37, storage}, 0, 4);
    print_digest("embedding/" + std::to_string(static_cast<int>(storage)), y);
  }
}

void attention_cases(const Kernels& kernels) {
  constexpr int64_t kB = 2, kHq = 6, kHkv = 2, kT = 150;
  for (const int64_t D : {1, 20, 64, 128}) {
    for (const int64_t window : {0, 33}) {
      for (const float softcap : {0.0f, 4.0f}) {
        state = static_cast<uint64_t>(D);
        const auto q = values(kB * kHq * kT * D, 2), k = values(kB * kHkv * kT * D, 2);
        const auto v = values(kB * kHkv * kT * D, 8);
        std::vector<int64_t> positions(kB * kT);
        for (int64_t t = 0; t < kT; ++t) {
          positions[t] = t;
          positions[kT + t] = t < 41 ? -1 : t - 41;
        }
        const KeyBlocks found = find_key_blocks(positions.data(), kB, kT);
        std::vector<float> o(kB * kT * kHq * D);
        const AttentionArgs args = {q.data(),
                                    k.data(),
                                    v.data(),
                                    o.data(),
                                    positions.data(),
                                    found.blocks.data(),
                                    found.offsets.data(),
                                    kB,
                                    kHq,
                                    kHkv,
                                    kT,
                                    D,
                                    kHq * kT * D,
                                    kT * D,
                                    D,
                                    kHkv * kT * D,
                                    kT * D,
                                    D,
                                    kHkv * kT * D,
                                    kT * D,
                                    D,
                                    window,
                                    0.125f,
                                    softcap};
        const int64_t units = kB * kHkv * ((kHq / kHkv * kT + kernels.attention_unit - 1) / kernels.attention_unit);
        parallel_for(kThreads, units, 1, [&](int64_t begin, int64_t end) { kernels.attention(args, begin, end); });
        print_digest("attention/" + std::to_string(D) + "/" + std::to_string(window) + (softcap > 0 ? "/cap" : ""), o);
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::printf("isas");
  for (const Kernels* table : available_kernels()) std::printf(" %s", table->name);
  std::printf("\n");
  if (argc > 1 && !select_kernels(argv[1])) {
    std::fprintf(stderr, "kernel_digests: no instruction set %s here\n", argv[1]);
    return 2;
  }
  const Kernels& kernels = active_kernels();
  linear_cases(kernels);
  row_cases(kernels);
  elementwise_cases(kernels);
  rotary_cases(kernels);
  embedding_cases(kernels);
  attention_cases(kernels);
  return 0;
}
