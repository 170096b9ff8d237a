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

// Elements from `index` on, as many as `lanes` says; the lanes past them are +0.
template <class Lanes>
LAYERCAST_INLINE F32 read_vector(const void* base, int64_t index, Lanes lanes, Storage storage) {
  if (storage == Storage::kFloat32) return load(static_cast<const float*>(base) + index, lanes);
  uint16_t halves[kLanes] = {};
  memcpy(halves, static_cast<const uint16_t*>(base) + index, 2 * static_cast<size_t>(lanes.count));
  const U32 wide = load_halves(halves);
  return storage == Storage::kBFloat16 ? bitcast<F32>(wide << 16) : widen_half(wide);
}

template <Storage kStorage>
struct Layout {
  static constexpr int kBytes = kStorage == Storage::kFloat32 ? 4 : 2;
  static constexpr int kPerWord = 4 / kBytes;  // elements in a 32-bit word
  static constexpr int kPerVector = kPerWord * kLanes;
};

// The elements of one 32-bit word of each row, in ascending k.
template <Storage kStorage>
LAYERCAST_INLINE void widen(U32 words, F32 (&elements)[Layout<kStorage>::kPerWord]) {
  if constexpr (kStorage == Storage::kFloat32) {
    elements[0] = bitcast<F32>(words);
  } else if constexpr (kStorage == Storage::kBFloat16) {
    elements[0] = bitcast<F32>(words << 16);
    elements[1] = bitcast<F32>(words & 0xffff0000u);
  } else {
    elements[0] = widen_half(words & 0xffffu);
    elements[1] = widen_half(words >> 16);
  }
}

// kLanes rows that are read together, a vector's worth of each at a time.
struct Rows {
  const char* first[kLanes];  // each row's first byte
  const char* end;            // nothing at or past it is read
  int64_t shared;             // bytes that every row has before the end

  // To be called when `first` and `end` are set.
  LAYERCAST_INLINE void measure() {
    shared = end - first[0];
    for (int lane = 1; lane < kLanes; ++lane) shared = end - first[lane] < shared ? end - first[lane] : shared;
  }
};

// `load_columns` where some row's vector would reach past the end: what lies before it, and +0 beyond.
__attribute__((noinline)) void copy_rows(const Rows& rows, int64_t offset, uint32_t (&copy)[kLanes][kLanes]) {
  constexpr auto kSize = static_cast<int64_t>(sizeof copy[0]);
  memset(copy, 0, sizeof copy);
  for (int lane = 0; lane < kLanes; ++lane) {
    const int64_t left = rows.end - rows.first[lane] - offset;
    if (left > 0) memcpy(copy[lane], rows.first[lane] + offset, static_cast<size_t>(left < kSize ? left : kSize));
  }
}

// One vector of each row, from byte `offset` of the row on, transposed; whole where memory allows: past what the caller
// will use.
LAYERCAST_INLINE void load_columns(const Rows& rows, int64_t offset, U32 (&words)[kLanes]) {
  if (__builtin_expect(offset + static_cast<int64_t>(sizeof(U32)) <= rows.shared, true)) {
    load_transposed(rows.first, offset, words);
    return;
  }
  uint32_t copy[kLanes][kLanes];
  copy_rows(rows, offset, copy);
#pragma GCC unroll 16
  for (int lane = 0; lane < kLanes; ++lane) words[lane] = load_words(copy[lane]);
  transpose(words);
}

// `count` elements of kLanes rows, from byte `offset` of each on, become columns: packed[k * pitch + lane] = element k
// of row `lane`.
template <Storage kStorage>
LAYERCAST_INLINE void pack_rows(const Rows& rows, int64_t offset, int count, float* packed, int64_t pitch) {
  using L = Layout<kStorage>;
  int k = 0;
  U32 words[kLanes];
  for (; k + L::kPerVector <= count; k += L::kPerVector) {
    load_columns(rows, offset + static_cast<int64_t>(k) * L::kBytes, words);
#pragma GCC unroll 16
    for (int word = 0; word < kLanes; ++word) {
      F32 elements[L::kPerWord];
      widen<kStorage>(words[word], elements);
      for (int i = 0; i < L::kPerWord; ++i) store(packed + (k + word * L::kPerWord + i) * pitch, elements[i]);
    }
  }
  if (k == count) return;
  load_columns(rows, offset + static_cast<int64_t>(k) * L::kBytes, words);
#pragma GCC unroll 16
  for (int word = 0; word < kLanes; ++word) {
    F32 elements[L::kPerWord];
    widen<kStorage>(words[word], elements);
    for (int i = 0; i < L::kPerWord; ++i) {
      if (k + word * L::kPerWord + i < count) store(packed + (k + word * L::kPerWord + i) * pitch, elements[i]);
    }
  }
}

template <Storage kStorage>
LAYERCAST_INLINE void pack_rows(const Rows& rows, int count, float* packed, int64_t pitch) {
  pack_rows<kStorage>(rows, 0, count, packed, pitch);
}

}  // namespace
}  // namespace layercast::LAYERCAST_ISA
