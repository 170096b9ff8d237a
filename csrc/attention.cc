// softmax(scale * q k^T) v over blocks of 64 key positions, merged in ascending order.
//
// A unit of work is some rows (query, query head) of one sequence and one key/value head. They share each block's keys,
// transposed once, and go through it in runs: rows that see the same slots of the block.
#include "kernels.h"
#include "storage.h"
#include "tile.h"

namespace layercast::LAYERCAST_ISA {
namespace {

// Register tiles: rows x 4 vectors of slots for the scores, rows x 4 vectors of channels (and a sum) for the values.
#if LAYERCAST_LANES == 16 || LAYERCAST_LANES == 4
constexpr int kScoreRows = 6, kValueRows = 6;
#else
constexpr int kScoreRows = 2, kValueRows = 2;
#endif
constexpr int kSlabVectors = 4;
constexpr int kSlab = kSlabVectors * kLanes;

// The rows of a unit: their queries side by side, and what has been merged so far.
struct State {
  alignas(64) float q[kQueryRows * kMaxHeadDim];  // (rows, D)
  float* o[kQueryRows];
  int64_t position[kQueryRows];  // -1: padding
  bool merged[kQueryRows];       // some block
  alignas(64) float m[kQueryRows];
  alignas(64) float l[kQueryRows];
  int rows;
};

// One block as a run of rows sees it.
struct View {
  const float* keys;                      // (D, 64): the keys, a column each; columns of hidden slots hold anything
  const float* values[kKeyBlock];         // each slot's value, zeros where hidden
  alignas(64) int32_t hidden[kKeyBlock];  // -1 where hidden, 0 where visible
  int first, last;                        // every visible slot lies in [first, last)
  bool whole;                             // every slot is visible
};

alignas(64) constexpr float kZeros[kMaxHeadDim] = {};

// Bits [first, last) of the block that a query may look at by position; whether they are present is another matter.
LAYERCAST_INLINE uint64_t visible_slots(const AttentionArgs& args, const KeyBlock& block, int64_t position) {
  const int64_t origin = block.index * kKeyBlock;
  int64_t last = position + 1 - origin;
  int64_t first = args.window > 0 ? last - args.window : 0;
  if (last <= 0 || first >= kKeyBlock) return 0;
  last = last > kKeyBlock ? kKeyBlock : last;
  first = first < 0 ? 0 : first;
  const uint64_t below = last == kKeyBlock ? ~uint64_t{0} : (uint64_t{1} << last) - 1;
  return below & ~((uint64_t{1} << first) - 1) & block.present;
}

// keys[d * 64 + j] = channel d of slot j's key; where the block has none, of another slot's.
void pack_keys(const AttentionArgs& args, const float* k, const KeyBlock& block, float* keys) {
  const int any = __builtin_ctzll(block.present);
  for (int j = 0; j < kKeyBlock; j += kLanes) {
    Rows rows;
    rows.end = nullptr;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int32_t slot = block.slots[(block.present >> (j + lane)) & 1 ? j + lane : any];
      rows.first[lane] = reinterpret_cast<const char*>(k + slot * args.k_stride_t);
      // The furthest read past a row that is sure to be memory of ours: to that row's own end.
      const char* end = rows.first[lane] + args.D * static_cast<int64_t>(sizeof(float));
      rows.end = end > rows.end ? end : rows.end;
    }
    rows.measure();
    pack_rows<Storage::kFloat32>(rows, static_cast<int>(args.D), keys + j, kKeyBlock);
  }
}

void make_view(const AttentionArgs& args, const float* v, const KeyBlock& block, uint64_t visible, View& view) {
  view.first = __builtin_ctzll(visible);
  view.last = kKeyBlock - __builtin_clzll(visible);
  view.whole = visible == ~uint64_t{0};
  for (int j = 0; j < kKeyBlock; ++j) {
    const bool seen = (visible >> j) & 1;
    view.hidden[j] = seen ? 0 : -1;
    view.values[j] = seen ? v + block.slots[j] * args.v_stride_t : kZeros;
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

// Chains over the slots of channels [d, d + kVectors * kLanes) for kRows rows, merged into o: o * a + chain * b.
template <int kRows, int kVectors, class Lanes>
__attribute__((noinline)) void weigh(const View& view, int64_t d, Lanes lanes, const float* p, const float* a,
                                     const float* b, float* const* o) {
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
      const F32 chain = view.last < kKeyBlock ? acc[r][i] + 0.0f : acc[r][i];
      store(merged, fma(load(merged, lanes), splat(a[r]), chain * splat(b[r])), lanes);
    }
  }
}

// `weigh` over every channel.
template <int kRows>
LAYERCAST_INLINE void weigh_channels(const AttentionArgs& args, const View& view, const float* p, const float* a,
                                     const float* b, float* const* o) {
  int64_t d = 0;
  for (; d + kSlab <= args.D; d += kSlab) weigh<kRows, kSlabVectors>(view, d, AllLanes{}, p, a, b, o);
  for (; d + kLanes <= args.D; d += kLanes) weigh<kRows, 1>(view, d, AllLanes{}, p, a, b, o);
  if (d < args.D) weigh<kRows, 1>(view, d, SomeLanes{static_cast<int>(args.D - d)}, p, a, b, o);
}

// f.template operator()<rows>(first) over 0..count in tiles of at most kRows, about equal: 4 and 3 rather than 6 and 1.
template <int kRows, class Function>
LAYERCAST_INLINE void over_tiles(int count, const Function& f) {
  int tiles = (count + kRows - 1) / kRows;
  for (int r = 0; r < count; --tiles) {
    const int rows = (count - r + tiles - 1) / tiles;
    with_rows<kRows>(rows, [&]<int kTile>() { f.template operator()<kTile>(r); });
    r += rows;
  }
}

// Rows [begin, end) of the state, all seeing the block alike, through it.
void attend_run(const AttentionArgs& args, const View& view, int begin, int end, State& state, float* scores) {
  const int count = end - begin;
  const float* q = state.q + begin * args.D;
  over_tiles<kScoreRows>(count,
                         [&]<int kRows>(int r) { score<kRows>(args, view, q + r * args.D, scores + r * kKeyBlock); });
  alignas(64) float a[kQueryRows], b[kQueryRows], sums[kQueryRows + kLanes];
  float* m = state.m + begin;
  float* l = state.l + begin;
  for (int r = 0; r < count; ++r) {
    const float m_block = exponentiate(scores + r * kKeyBlock);
    const float larger = m[r] > m_block ? m[r] : m_block;
    const float m_next = m[r] != m[r] ? m[r] : larger;
    a[r] = m[r] - m_next;
    b[r] = m_block - m_next;
    m[r] = m_next;
    state.merged[begin + r] = true;
  }
  for_each_vector(count, [&](int64_t r, auto lanes) {
    store(a + r, exp(load(a + r, lanes)), lanes);
    store(b + r, exp(load(b + r, lanes)), lanes);
  });
  sum_rows(scores, count, sums);
  over_tiles<kValueRows>(count, [&]<int kRows>(int r) {
    weigh_channels<kRows>(args, view, scores + r * kKeyBlock, a + r, b + r, state.o + begin + r);
  });
  for_each_vector(count, [&](int64_t r, auto lanes) {
    const F32 scaled = load(sums + r, lanes) * load(b + r, lanes);
    store(l + r, fma(load(l + r, lanes), load(a + r, lanes), scaled), lanes);
  });
}

// Every row of the state over every block of its sequence.
void attend(const AttentionArgs& args, int64_t b, int64_t h, State& state) {
  alignas(64) float keys[kMaxHeadDim * kKeyBlock];
  alignas(64) float scores[kQueryRows * kKeyBlock];
  const float* k = args.k + b * args.k_stride_b + h * args.k_stride_h;
  const float* v = args.v + b * args.v_stride_b + h * args.v_stride_h;
  for (int64_t i = args.block_offsets[b]; i < args.block_offsets[b + 1]; ++i) {
    const KeyBlock& block = args.blocks[i];
    uint64_t visible[kQueryRows];
    uint64_t any = 0;
    for (int r = 0; r < state.rows; ++r) any |= visible[r] = visible_slots(args, block, state.position[r]);
    if (any == 0) continue;
    pack_keys(args, k, block, keys);
    View view;
    view.keys = keys;
    for (int begin = 0, end; begin < state.rows; begin = end) {
      end = begin + 1;
      while (end < state.rows && visible[end] == visible[begin]) ++end;
      if (visible[begin] == 0) continue;
      make_view(args, v, block, visible[begin], view);
      attend_run(args, view, begin, end, state, scores);
    }
  }
}

}  // namespace

void attention(const AttentionArgs& args, int64_t begin, int64_t end) {
  const int64_t group = args.Hq / args.Hkv;
  const int64_t rows = group * args.Tq;
  const int64_t units = (rows + kQueryRows - 1) / kQueryRows;
  State state;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t b = unit / units / args.Hkv, h = unit / units % args.Hkv, first = unit % units * kQueryRows;
    state.rows = static_cast<int>(rows - first < kQueryRows ? rows - first : kQueryRows);
    for (int r = 0; r < state.rows; ++r) {
      const int64_t t = (first + r) / group, head = h * group + (first + r) % group;
      const float* q = args.q + b * args.q_stride_b + head * args.q_stride_h + t * args.q_stride_t;
      memcpy(state.q + r * args.D, q, sizeof(float) * static_cast<size_t>(args.D));
      state.o[r] = args.o + ((b * args.Tq + t) * args.Hq + head) * args.D;
      memset(state.o[r], 0, sizeof(float) * static_cast<size_t>(args.D));
      state.position[r] = args.query_positions[b * args.Tq + t];
      state.merged[r] = false;
      state.m[r] = -infinity();
      state.l[r] = 0.0f;
    }
    attend(args, b, h, state);
    for (int r = 0; r < state.rows; ++r) {
      // A row that saw no key keeps its +0.
      if (!state.merged[r]) continue;
      const F32 l = splat(state.l[r]);
      for_each_vector(args.D, [&](int64_t d, auto lanes) {
        store(state.o[r] + d, canonical(load(state.o[r] + d, lanes) / l), lanes);
      });
    }
  }
}

}  // namespace layercast::LAYERCAST_ISA
