// y = x weight^T + bias with 16-bit weights read as they lie and everything else in binary32.
//
// A lane is an output column, so that a chain runs along k inside one lane. A chunk of the weights (64 k of some
// columns) is transposed and widened once into the first-level cache and serves every row of x from there.
#include "kernels.h"
#include "storage.h"
#include "tile.h"

namespace layercast::LAYERCAST_ISA {
namespace {

constexpr int kBlockRows = 8 * kTileRows;
constexpr int kLevels = 3;  // log2(kShards): partial sums waiting in the tree that joins the shards

// Rows [row, row + rows) of x against one packed chunk; chunk sums are added to `shard`.
LAYERCAST_INLINE void multiply_chunk(const LinearArgs& args, int64_t row, int rows, int64_t k, int count,
                                     const float* packed, float* shard) {
  for (int i = 0; i < rows; i += kTileRows) {
    const int tile = rows - i < kTileRows ? rows - i : kTileRows;
    const float* x = args.x + (row + i) * args.ldx + k;
    float* sums = shard + i * kTileColumns;
    with_rows(tile, [&]<int kRows>() {
      F32 chain[kRows][kTileVectors];
      chains<kRows, kTileVectors>(x, args.ldx, packed, kTileColumns, count, chain);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
        for (int j = 0; j < kTileVectors; ++j) {
          float* sum = sums + r * kTileColumns + j * kLanes;
          store(sum, load(sum) + chain[r][j]);
        }
      }
    });
  }
}

template <Storage kStorage>
void pack_chunk(const LinearArgs& args, int64_t column, int columns, int64_t k, int count, float* packed) {
  constexpr int kSize = kStorage == Storage::kFloat32 ? 4 : 2;
  for (int j = 0; j < kTileVectors; ++j) {
    const char* rows[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      const int c = j * kLanes + lane;
      rows[lane] =
          c < columns ? static_cast<const char*>(args.weight) + ((column + c) * args.ldw + k) * kSize : nullptr;
    }
    pack_rows<kStorage>(rows, count, packed + j * kLanes, kTileColumns);
  }
}

void write_block(const LinearArgs& args, int64_t row, int rows, int64_t column, int columns, const float* sums) {
  for (int j = 0; j < columns; ++j) {
    const float bias = args.bias == nullptr ? 0.0f : read_element(args.bias, column + j, args.bias_storage);
    for (int i = 0; i < rows; ++i) {
      float value = sums[i * kTileColumns + j];
      if (args.bias != nullptr) value += bias;
      args.y[(row + i) * args.N + column + j] = value != value ? bitcast<float>(0x7fc00000) : value;
    }
  }
}

template <Storage kStorage>
void linear_block(const LinearArgs& args, int64_t row, int rows, int64_t column, int columns) {
  alignas(64) float packed[kChunk * kTileColumns];
  alignas(64) float waiting[kLevels][kBlockRows * kTileColumns];
  alignas(64) float shard[kBlockRows * kTileColumns];
  const int size = rows * kTileColumns;
  for (int s = 0; s < kShards; ++s) {
    memset(shard, 0, sizeof(float) * static_cast<size_t>(size));
    const int64_t end = shard_begin(args.K, s + 1);
    for (int64_t k = shard_begin(args.K, s); k < end; k += kChunk) {
      const int count = static_cast<int>(end - k < kChunk ? end - k : kChunk);
      pack_chunk<kStorage>(args, column, columns, k, count, packed);
      multiply_chunk(args, row, rows, k, count, packed, shard);
    }
    // Shards joined as a binary counter carries: each odd bit of s closes a subtree.
    int level = 0;
    for (; (s >> level) & 1; ++level) {
      for (int i = 0; i < size; i += kLanes) store(shard + i, load(waiting[level] + i) + load(shard + i));
    }
    if (level < kLevels) memcpy(waiting[level], shard, sizeof(float) * static_cast<size_t>(size));
  }
  write_block(args, row, rows, column, columns, shard);
}

}  // namespace

void linear(const LinearArgs& args, int64_t begin, int64_t end) {
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t column = unit * kTileColumns;
    const int columns = static_cast<int>(args.N - column < kTileColumns ? args.N - column : kTileColumns);
    for (int64_t row = 0; row < args.M; row += kBlockRows) {
      const int rows = static_cast<int>(args.M - row < kBlockRows ? args.M - row : kBlockRows);
      switch (args.weight_storage) {
        case Storage::kFloat32:
          linear_block<Storage::kFloat32>(args, row, rows, column, columns);
          break;
        case Storage::kBFloat16:
          linear_block<Storage::kBFloat16>(args, row, rows, column, columns);
          break;
        case Storage::kFloat16:
          linear_block<Storage::kFloat16>(args, row, rows, column, columns);
          break;
      }
    }
  }
}

}  // namespace layercast::LAYERCAST_ISA
