// The weights of kLanes columns of y, a lane each, wherever they lie: as rows along k, or, transposed, as rows along n.
#pragma once

#include "kernels.h"
#include "storage.h"

namespace layercast::LAYERCAST_ISA {
namespace {

// Weights (N, K), each column's k side by side: vectors along k of kLanes rows, transposed in registers.
template <Storage kStorage>
class AlongK {
  using L = Layout<kStorage>;

 public:
  AlongK() = default;
  // Columns from `column` on; past the last one that one again, whose sums go nowhere. Those that follow are `vectors`
  // further on.
  LAYERCAST_INLINE AlongK(const LinearArgs& args, int64_t column, int vectors = 1) {
    const char* weight = static_cast<const char*>(args.weight);
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t c = column + lane < args.N ? column + lane : args.N - 1;
      rows_.first[lane] = weight + c * args.ldw * L::kBytes;
    }
    rows_.end = weight + ((args.N - 1) * args.ldw + args.K) * L::kBytes;
    rows_.measure();
    row_bytes_ = args.K * L::kBytes;
    next_ = (vectors * kLanes * args.ldw - args.K) * L::kBytes;
  }

  static constexpr int kSteps = L::kPerVector;  // of k at a time

  // f(i, weights of k + i) for i below `limit`, at most kSteps.
  template <class Function>
  LAYERCAST_INLINE void each(int64_t k, int limit, const Function& f) const {
    U32 words[kLanes];
    ask_ahead(k * L::kBytes);
    load_columns(rows_, k * L::kBytes, words);
#pragma GCC unroll 16
    for (int word = 0; word < kLanes; ++word) {
      F32 elements[L::kPerWord];
      widen<kStorage>(words[word], elements);
#pragma GCC unroll 2
      for (int i = 0; i < L::kPerWord; ++i) {
        if (word * L::kPerWord + i >= limit) return;
        f(word * L::kPerWord + i, elements[i]);
      }
    }
  }

  // packed[i * pitch + lane] = weight of k + i, for i below `count`.
  LAYERCAST_INLINE void pack(int64_t k, int count, float* packed, int64_t pitch) const {
    pack_rows<kStorage>(rows_, k * L::kBytes, count, packed, pitch);
  }

 private:
  // Decode waits for memory and nothing else: each row's bytes are asked for six lines ahead, at its end the first ones
  // of the row that comes next.
  LAYERCAST_INLINE void ask_ahead(int64_t offset) const {
    if constexpr (kLanes >= 4) {
      if (sizeof(U32) < 64 && (offset & 63) >= static_cast<int64_t>(sizeof(U32))) return;
      int64_t ahead = offset + 384;
      if (ahead >= row_bytes_) ahead += next_;
#pragma GCC unroll 16
      for (int lane = 0; lane < kLanes; ++lane) __builtin_prefetch(rows_.first[lane] + ahead);
    }
  }

  Rows rows_;
  int64_t row_bytes_, next_;
};

// Weights (K, N), each k's columns side by side.
template <Storage kStorage>
class AlongN {
  static constexpr int kBytes = Layout<kStorage>::kBytes;

 public:
  AlongN() = default;
  LAYERCAST_INLINE AlongN(const LinearArgs& args, int64_t column, int /* vectors */ = 1)
      : first_(static_cast<const char*>(args.weight) + column * kBytes),
        pitch_(args.ldw * kBytes),
        lanes_(args.N - column < kLanes ? static_cast<int>(args.N - column) : kLanes) {}

  static constexpr int kSteps = 16;

  template <class Function>
  LAYERCAST_INLINE void each(int64_t k, int limit, const Function& f) const {
    for (int i = 0; i < kSteps && i < limit; ++i) f(i, at(k + i));
  }

  LAYERCAST_INLINE void pack(int64_t k, int count, float* packed, int64_t pitch) const {
    for (int i = 0; i < count; ++i) store(packed + i * pitch, at(k + i));
  }

 private:
  // Lanes past the last column are +0.
  LAYERCAST_INLINE F32 at(int64_t k) const {
    const char* row = first_ + k * pitch_;
    __builtin_prefetch(row + 16 * pitch_);
    if (lanes_ == kLanes) return read_vector(row, 0, AllLanes{}, kStorage);
    return lanes_ > 0 ? read_vector(row, 0, SomeLanes{lanes_}, kStorage) : splat(0.0f);
  }

  const char* first_;
  int64_t pitch_;
  int lanes_;
};

}  // namespace
}  // namespace layercast::LAYERCAST_ISA
