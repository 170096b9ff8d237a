// What the parts of kernel_digests share: inputs made from integers, and a digest per case.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels.h"

namespace layercast::digests {

constexpr int kThreads = 2;

// Starts the inputs that follow from `state`.
void seed(uint64_t state);

uint64_t random_bits();

// Values whose sums show their order: random significands, exponents within +-`spread` of 1.
std::vector<float> values(size_t count, int spread);

// Any pattern at all: subnormals, infinities and NaN.
std::vector<float> patterns(size_t count);

// Weights in a storage type, as bytes: bfloat16 is the upper half of each value, binary16 a word with an exponent of
// its own.
std::vector<uint8_t> stored(const std::vector<float>& wide, Storage storage);

void print_digest(const std::string& name, const void* data, size_t bytes);

template <class T>
void print_digest(const std::string& name, const std::vector<T>& v) {
  print_digest(name, v.data(), v.size() * sizeof(T));
}

void row_cases(const Kernels& kernels);
void elementwise_cases(const Kernels& kernels);
void selection_cases();
void expert_cases(const Kernels& kernels);

}  // namespace layercast::digests
