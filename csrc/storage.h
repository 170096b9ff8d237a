// Weights in their storage type, made binary32. Every conversion is exact.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace layercast::LAYERCAST_ISA {
namespace {

LAYERCAST_INLINE float widen_half_scalar(uint16_t half) {
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffu) << 13;
  // The exponents' biases differ by 112; the product is exact, subnormal halves included.
  float value = bitcast<float>(magnitude) * 0x1p112f;
  if ((half & 0x7c00u) == 0x7c00u) value = bitcast<float>(magnitude | 0x7f800000u);
  return bitcast<float>(bitcast<uint32_t>(value) | (static_cast<uint32_t>(half & 0x8000u) << 16));
}

LAYERCAST_INLINE int64_t element_size(Storage storage) { return storage == Storage::kFloat32 ? 4 : 2; }

LAYERCAST_INLINE float read_element(const void* base, int64_t index, Storage storage) {
  if (storage == Storage::kFloat32) return static_cast<const float*>(base)[index];
  const uint16_t word = static_cast<const uint16_t*>(base)[index];
  return storage == Storage::kBFloat16 ? bitcast<float>(static_cast<uint32_t>(word) << 16) : widen_half_scalar(word);
}

// Elements [index, index + count) of an array, count <= kLanes; the lanes past them are +0.
LAYERCAST_INLINE F32 read_vector(const void* base, int64_t index, int count, Storage storage) {
  if (storage == Storage::kFloat32) {
    const float* p = static_cast<const float*>(base) + index;
    return count == kLanes ? load(p) : load_partial(p, count);
  }
  uint16_t halves[kLanes] = {};
  memcpy(halves, static_cast<const uint16_t*>(base) + index, 2 * static_cast<size_t>(count));
  uint32_t words[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) words[lane] = halves[lane];
  const U32 wide = load_words(words);
  return storage == Storage::kBFloat16 ? bitcast<F32>(wide << 16) : widen_half(wide);
}

// One step of `pack_rows`: a 32-bit word (one binary32 or two 16-bit elements) from each of kLanes rows, transposed,
// so that word j of every row becomes one vector, and its elements one vector each.
template <Storage kStorage>
LAYERCAST_INLINE void unpack_words(U32 (&words)[kLanes], float* packed, int64_t pitch, int count) {
  constexpr int kPerWord = kStorage == Storage::kFloat32 ? 1 : 2;
  transpose(words);
#pragma GCC unroll 16
  for (int word = 0; word < kLanes; ++word) {
    F32 elements[kPerWord];
    if constexpr (kStorage == Storage::kFloat32) {
      elements[0] = bitcast<F32>(words[word]);
    } else if constexpr (kStorage == Storage::kBFloat16) {
      elements[0] = bitcast<F32>(words[word] << 16);
      elements[1] = bitcast<F32>(words[word] & 0xffff0000u);
    } else {
      elements[0] = widen_half(words[word] & 0xffffu);
      elements[1] = widen_half(words[word] >> 16);
    }
    for (int i = 0; i < kPerWord; ++i) {
      const int k = word * kPerWord + i;
      if (k < count) store(packed + k * pitch, elements[i]);
    }
  }
}

// kLanes rows of `count` elements become columns: packed[k * pitch + lane] = row lane, element k. `row` gives the
// address of each row's first element; a null one reads as zeros.
template <Storage kStorage>
LAYERCAST_INLINE void pack_rows(const char* const (&rows)[kLanes], int count, float* packed, int64_t pitch) {
  constexpr int kSize = kStorage == Storage::kFloat32 ? 4 : 2;
  constexpr int kStep = kLanes * 4 / kSize;
  for (int k = 0; k < count; k += kStep) {
    U32 words[kLanes];
    const int left = count - k < kStep ? count - k : kStep;
    for (int lane = 0; lane < kLanes; ++lane) {
      if (rows[lane] != nullptr && left == kStep) {
        words[lane] = load_words(rows[lane] + static_cast<int64_t>(k) * kSize);
      } else {
        // The row's end: nothing past it is read.
        uint32_t buffer[kLanes] = {};
        if (rows[lane] != nullptr)
          memcpy(buffer, rows[lane] + static_cast<int64_t>(k) * kSize, static_cast<size_t>(left * kSize));
        words[lane] = load_words(buffer);
      }
    }
    unpack_words<kStorage>(words, packed + k * pitch, pitch, left);
  }
}

}  // namespace
}  // namespace layercast::LAYERCAST_ISA
