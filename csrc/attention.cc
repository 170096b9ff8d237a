// softmax(scale * q k^T) v over blocks of 64 key positions, merged in ascending order.
//
// A unit of work is one sequence and one key/value head; its query heads and a few queries share each block's
// transposed keys.
#include "kernels.h"
#include "storage.h"
#include "tile.h"

namespace layercast::LAYERCAST_ISA {
namespace {

constexpr int kBlockQueries = 16;  // rows (query head, query) that share a block's keys

struct Query {
  const float* q;
  float* o;
  int64_t position;  // -1: padding
  float m, l;
};

// Slots [first, last) of the block that the query may look at, by position; which exist is another matter.
struct Span {
  int first, last;
};

LAYERCAST_INLINE Span visible_span(const AttentionArgs& args, const KeyBlock& block, int64_t position) {
  const int64_t origin = block.index * kKeyBlock;
  int64_t last = position + 1 - origin;
  int64_t first = args.window > 0 ? position + 1 - args.window - origin : 0;
  last = last < 0 ? 0 : last > kKeyBlock ? kKeyBlock : last;
  first = first < 0 ? 0 : first > last ? last : first;
  return {static_cast<int>(first), static_cast<int>(last)};
}

// keys[d][j] = key of slot j, zeros where the block has none.
void pack_keys(const float* k, int64_t stride, const KeyBlock& block, int64_t D, float* keys) {
  for (int j = 0; j < kKeyBlock; j += kLanes) {
    const char* rows[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      const int32_t slot = block.slots[j + lane];
      rows[lane] = slot < 0 ? nullptr : reinterpret_cast<const char*>(k + slot * stride);
    }
    pack_rows<Storage::kFloat32>(rows, static_cast<int>(D), keys + j, kKeyBlock);
  }
}

// One chain over D for each slot, then the scale, then the softcap.
LAYERCAST_INLINE void score(const AttentionArgs& args, const Query& query, const float* keys, float* scores) {
  constexpr int kVectors = kKeyBlock / kLanes < 4 ? kKeyBlock / kLanes : 4;
  for (int j = 0; j < kKeyBlock; j += kVectors * kLanes) {
    F32 sums[1][kVectors];
    chains<1, kVectors>(query.q, 0, keys + j, kKeyBlock, static_cast<int>(args.D), sums);
    for (int i = 0; i < kVectors; ++i) {
      F32 s = sums[0][i] * args.scale;
      if (args.softcap != 0.0f) s = args.softcap * tanh(s / args.softcap);
      store(scores + j + i * kLanes, s);
    }
  }
}

// One query and one block, merged into the query's running m, l and o; false where the query sees none of its keys.
bool attend(const AttentionArgs& args, Query& query, const KeyBlock& block, const float* keys, const float* v) {
  const Span span = visible_span(args, block, query.position);
  bool visible[kKeyBlock];
  int first = kKeyBlock, last = 0;
  for (int j = 0; j < kKeyBlock; ++j) {
    visible[j] = j >= span.first && j < span.last && block.slots[j] >= 0;
    if (visible[j]) {
      first = first < j ? first : j;
      last = j + 1;
    }
  }
  if (first >= last) return false;

  float scores[kKeyBlock], p[kKeyBlock];
  score(args, query, keys, scores);
  float m = -infinity();
  for (int j = first; j < last; ++j) {
    if (visible[j]) m = m != m || m > scores[j] ? m : scores[j];
  }
  for (int j = 0; j < kKeyBlock; ++j) scores[j] = visible[j] ? scores[j] - m : -infinity();
  for (int j = 0; j < kKeyBlock; j += kLanes) store(p + j, exp(load(scores + j)));
  // exp(-inf) is +0, what a masked slot has; p of a NaN maximum stays NaN only where visible.
  float l = 0.0f;
  for (int j = first; j < last; ++j) l += p[j];

  const float m_next = query.m != query.m || query.m > m ? query.m : m;
  float factors[2] = {query.m - m_next, m - m_next};
  for (float& factor : factors) {
    float lanes[kLanes];
    store(lanes, exp(splat(factor)));
    factor = lanes[0];
  }
  const float l_scaled = l * factors[1];
  float l_lanes[kLanes];
  store(l_lanes, fma(splat(query.l), splat(factors[0]), splat(l_scaled)));
  query.l = l_lanes[0];
  query.m = m_next;

  const bool masked_after = last < kKeyBlock;
  for (int64_t d = 0; d < args.D; d += kLanes) {
    const int count = static_cast<int>(args.D - d < kLanes ? args.D - d : kLanes);
    F32 acc = splat(0.0f);
    for (int j = first; j < last; ++j) {
      const F32 value = visible[j] ? load_partial(v + block.slots[j] * args.v_stride_t + d, count) : splat(0.0f);
      acc = fma(splat(p[j]), value, acc);
    }
    // The slots left are masked: fma(+0, +0, acc) over and over, which is one addition of +0.
    if (masked_after) acc = acc + 0.0f;
    const F32 o = fma(load_partial(query.o + d, count), splat(factors[0]), acc * splat(factors[1]));
    store_partial(query.o + d, o, count);
  }
  return true;
}

void finish(const AttentionArgs& args, const Query& query, bool any) {
  for (int64_t d = 0; d < args.D; ++d) {
    const float o = any ? query.o[d] / query.l : 0.0f;
    query.o[d] = o != o ? bitcast<float>(0x7fc00000) : o;
  }
}

// Queries [t, t + count) of every query head that shares key/value head h of sequence b, group heads * count <= rows.
void attend_rows(const AttentionArgs& args, int64_t b, int64_t h, Query* queries, int rows, float* keys) {
  bool any[kBlockQueries] = {};
  int64_t newest = -1, oldest = INT64_MAX;
  for (int i = 0; i < rows; ++i) {
    newest = queries[i].position > newest ? queries[i].position : newest;
    if (queries[i].position >= 0 && queries[i].position < oldest) oldest = queries[i].position;
    memset(queries[i].o, 0, sizeof(float) * static_cast<size_t>(args.D));
  }
  const float* k = args.k + b * args.k_stride_b + h * args.k_stride_h;
  const float* v = args.v + b * args.v_stride_b + h * args.v_stride_h;
  for (int64_t block = args.block_offsets[b]; block < args.block_offsets[b + 1]; ++block) {
    const KeyBlock& key_block = args.blocks[block];
    if (newest < key_block.index * kKeyBlock) break;
    if (args.window > 0 && oldest - args.window >= (key_block.index + 1) * kKeyBlock - 1) continue;
    pack_keys(k, args.k_stride_t, key_block, args.D, keys);
    for (int i = 0; i < rows; ++i) {
      if (queries[i].position < 0) continue;
      any[i] = attend(args, queries[i], key_block, keys, v) || any[i];
    }
  }
  for (int i = 0; i < rows; ++i) finish(args, queries[i], any[i]);
}

}  // namespace

void attention(const AttentionArgs& args, int64_t begin, int64_t end) {
  alignas(64) float keys[kMaxHeadDim * kKeyBlock];
  const int64_t group = args.Hq / args.Hkv;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t b = unit / args.Hkv, h = unit % args.Hkv;
    Query queries[kBlockQueries];
    int rows = 0;
    for (int64_t t = 0; t < args.Tq; ++t) {
      for (int64_t g = 0; g < group; ++g) {
        const int64_t head = h * group + g;
        queries[rows++] = {args.q + b * args.q_stride_b + head * args.q_stride_h + t * args.q_stride_t,
                           args.o + ((b * args.Tq + t) * args.Hq + head) * args.D,
                           args.query_positions[b * args.Tq + t], -infinity(), 0.0f};
        if (rows == kBlockQueries) {
          attend_rows(args, b, h, queries, rows, keys);
          rows = 0;
        }
      }
    }
    if (rows > 0) attend_rows(args, b, h, queries, rows, keys);
  }
}

}  // namespace layercast::LAYERCAST_ISA
