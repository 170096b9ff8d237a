// One block of 64 key positions, and a run of rows (query, query head) that see the same slots of it: their scores and
// their sums of values.
#pragma once

#include "kernels.h"
#include "storage.h"
#include "tile.h"

namespace layercast::LAYERCAST_ISA {
namespace {

// Register tiles: rows x vectors of slots for the scores, rows x vectors of channels for the values.
// Their sums fit the registers: 32 of them, or 16.
constexpr int kScoreRows = kLanes > 1 ? 6 : 2, kValueRows = kScoreRows;
constexpr int kSlabVectors = kLanes == 8 ? 2 : 4;
constexpr int kSlab = kSlabVectors * kLanes;

alignas(64) constexpr float kZeros[kMaxHeadDim] = {};

// One key/value head of a sequence's cache.
struct Head {
  const char* k;
  const char* v;
  int64_t k_step, v_step;  // bytes from a slot to the next

  Head(const AttentionArgs& args, const AttentionSequence& sequence, int64_t head) {
    const int64_t size = element_size(args.storage);
    k = static_cast<const char*>(sequence.k) + head * args.k_stride_h * size;
    v = static_cast<const char*>(sequence.v) + head * args.v_stride_h * size;
    k_step = args.k_stride_t * size;
    v_step = args.v_stride_t * size;
  }
};

// One block as a run of rows sees it.
struct View {
  const float* keys;                      // (D, 64): the keys, a column each; columns of hidden slots hold anything
  const float* values[kKeyBlock];         // each slot's value, zeros where hidden
  alignas(64) int32_t hidden[kKeyBlock];  // -1 where hidden, 0 where visible
  int first, last;                        // every visible slot lies in [first, last)
  bool whole;                             // every slot is visible
};

// Bits [first, last) of the block that a query may look at by position, where the cache has them.
LAYERCAST_INLINE uint64_t visible_slots(const KeyBlock& block, int64_t position, int64_t window) {
  const int64_t origin = block.index * kKeyBlock;
  int64_t last = position + 1 - origin;
  int64_t first = window > 0 ? last - window : 0;
  if (last <= 0 || first >= kKeyBlock) return 0;
  last = last > kKeyBlock ? kKeyBlock : last;
  first = first < 0 ? 0 : first;
  const uint64_t below = last == kKeyBlock ? ~uint64_t{0} : (uint64_t{1} << last) - 1;
  return below & ~((uint64_t{1} << first) - 1) & block.present;
}

// keys[d * 64 + j] = channel d of slot j's key; where the block has none, of another slot's.
template <Storage kStorage>
void pack_keys(const Head& head, const KeyBlock& block, int64_t D, float* keys) {
  const int any = __builtin_ctzll(block.present);
  for (int j = 0; j < kKeyBlock; j += kLanes) {
    Rows rows;
    rows.end = nullptr;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int32_t slot = block.slots[(block.present >> (j + lane)) & 1 ? j + lane : any];
      rows.first[lane] = head.k + slot * head.k_step;
      // The furthest read past a row that is sure to be memory of ours: to that row's own end.
      const char* end = rows.first[lane] + D * Layout<kStorage>::kBytes;
      rows.end = end > rows.end ? end : rows.end;
    }
    rows.measure();
    pack_rows<kStorage>(rows, static_cast<int>(D), keys + j, kKeyBlock);
  }
}

// Where the value of each slot of `seen` lies in binary32: in the cache, or widened into `buffer` (64, D).
template <Storage kStorage>
void find_values(const Head& head, const KeyBlock& block, uint64_t seen, int64_t D, float* buffer,
                 const float** values) {
  for (int j = 0; j < kKeyBlock; ++j) {
    if (((seen >> j) & 1) == 0) continue;
    const char* row = head.v + block.slots[j] * head.v_step;
    if constexpr (kStorage == Storage::kFloat32) {
      values[j] = reinterpret_cast<const float*>(row);
    } else {
      float* wide = buffer + j * D;
      for_each_vector(D, [&](int64_t d, auto lanes) { store(wide + d, read_vector(row, d, lanes, kStorage), lanes); });
      values[j] = wide;
    }
  }
}

void make_view(const float* const* values, uint64_t visible, View& view) {
  view.first = __builtin_ctzll(visible);
  view.last = kKeyBlock - __builtin_clzll(visible);
  view.whole = visible == ~uint64_t{0};
  for (int j = 0; j < kKeyBlock; ++j) {
    const bool seen = (visible >> j) & 1;
    view.hidden[j] = seen ? 0 : -1;
    view.values[j] = seen ? values[j] : kZeros;
  }
}

// scores[r * 64 + j]: one chain over D, the scale, the softcap; -inf where hidden. A function of its own, as `weigh`
// is: their sums fill the register file.
template <int kRows>
__attribute__((noinline)) void score(const AttentionArgs& args, const View& view, const float* q, float* scores) {
  for (int j = 0; j < kKeyBlock; j += kSlab) {
    F32 sums[kRows][kSlabVectors];
    chains<kRows, kSlabVectors>(q, args.D, view.keys + j, kKeyBlock, static_cast<int>(args.D), sums);
    for (int r = 0; r < kRows; ++r) {
      for (int i = 0; i < kSlabVectors; ++i) {
        F32 s = sums[r][i] * args.scale;
        if (args.softcap != 0.0f) s = args.softcap * tanh(s / args.softcap);
        if (!view.whole) {
          I32 hidden;
          memcpy(&hidden, view.hidden + j + i * kLanes, sizeof hidden);
          s = hidden != 0 ? splat(-infinity()) : s;
        }
        store(scores + r * kKeyBlock + j + i * kLanes, s);
      }
    }
  }
}

// exp(s - m) in place, m being the row's maximum over visible slots, which is returned.
LAYERCAST_INLINE float exponentiate(float* scores) {
  F32 largest = load(scores);
  for (int j = kLanes; j < kKeyBlock; j += kLanes) largest = maximum(largest, load(scores + j));
  const float m = largest_lane(largest);
  for (int j = 0; j < kKeyBlock; j += kLanes) store(scores + j, exp(load(scores + j) - splat(m)));
  return m;
}

// sums[r], for the rows of p: the chain of a row over the slots. A lane a row; lanes past the last one repeat it.
void sum_rows(const float* p, int rows, float* sums) {
  alignas(64) float columns[kKeyBlock * kLanes];
  for (int r = 0; r < rows; r += kLanes) {
    Rows lanes;
    for (int lane = 0; lane < kLanes; ++lane) {
      lanes.first[lane] = reinterpret_cast<const char*>(p + (r + lane < rows ? r + lane : rows - 1) * kKeyBlock);
    }
    lanes.end = reinterpret_cast<const char*>(p + rows * kKeyBlock);
    lanes.measure();
    pack_rows<Storage::kFloat32>(lanes, kKeyBlock, columns, kLanes);
    F32 total = splat(0.0f);
    for (int j = 0; j < kKeyBlock; ++j) total = total + load(columns + j * kLanes);
    store(sums + r, total);
  }
}

// What a block's values are merged by: o becomes o * a + values * b for each row; or they are stored there as they
// are, where a is null.
struct Merge {
  const float* a;
  const float* b;
};

// Chains over the slots of channels [d, d + kVectors * kLanes) for kRows rows, merged into o.
template <int kRows, int kVectors, class Lanes>
__attribute__((noinline)) void weigh(const View& view, int64_t d, Lanes lanes, const float* p, Merge merge,
                                     float* const* o) {
  F32 acc[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) acc[r][i] = splat(0.0f);
  }
  for (int j = view.first; j < view.last; ++j) {
    F32 value[kVectors];
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) value[i] = load(view.values[j] + d + i * kLanes, lanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const F32 weight = splat(p[r * kKeyBlock + j]);
#pragma GCC unroll 16
      for (int i = 0; i < kVectors; ++i) acc[r][i] = fma(weight, value[i], acc[r][i]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) {
      float* merged = o[r] + d + i * kLanes;
      // The slots after the last visible one: fma(+0, +0, acc) over and over, which is one addition of +0.
      F32 chain = view.last < kKeyBlock ? acc[r][i] + 0.0f : acc[r][i];
      if (merge.a != nullptr) chain = fma(load(merged, lanes), splat(merge.a[r]), chain * splat(merge.b[r]));
      store(merged, chain, lanes);
    }
  }
}

// `weigh` over every channel.
template <int kRows>
LAYERCAST_INLINE void weigh_channels(int64_t D, const View& view, const float* p, Merge merge, float* const* o) {
  int64_t d = 0;
  for (; d + kSlab <= D; d += kSlab) weigh<kRows, kSlabVectors>(view, d, AllLanes{}, p, merge, o);
  for (; d + kLanes <= D; d += kLanes) weigh<kRows, 1>(view, d, AllLanes{}, p, merge, o);
  if (kLanes > 1 && d < D) weigh<kRows, 1>(view, d, SomeLanes{static_cast<int>(D - d)}, p, merge, o);
}

}  // namespace
}  // namespace layercast::LAYERCAST_ISA
