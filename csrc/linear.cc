// y = x weight^T + bias with 16-bit weights read as they lie and everything else in binary32.
//
// A lane is an output column, so that a chain runs along k inside one lane. Weights are loaded a vector of each of
// kLanes rows at a time, transposed as 32-bit words in registers and widened there. For a few rows of x the products
// follow at once; for more, the widened chunk (64 k of some columns) is kept in the first-level cache and serves every
// row from there.
#include "kernels.h"
#include "storage.h"
#include "tile.h"

namespace layercast::LAYERCAST_ISA {
namespace {

constexpr int kDirectRows = 4;  // up to here the widened weights are used from registers
constexpr int kBlockRows = 8 * kTileRows;
constexpr int kBlockTiles = 4;  // tiles of columns that share a copy of x's chunk
constexpr int kBlockColumns = kBlockTiles * kTileColumns;
constexpr int kLevels = 3;  // log2(kShards): partial sums waiting in the tree that joins the shards

// Part of y: rows x columns, sums kept kBlockColumns apart.
struct Block {
  int64_t row, column;
  int rows, columns;
};

// Rows of the weights, kLanes from column `column` on; past the last column that one again, whose sums go nowhere.
template <Storage kStorage>
LAYERCAST_INLINE Rows weight_rows(const LinearArgs& args, int64_t column, int64_t k) {
  constexpr int kBytes = Layout<kStorage>::kBytes;
  const char* weight = static_cast<const char*>(args.weight);
  Rows rows;
  for (int lane = 0; lane < kLanes; ++lane) {
    const int64_t c = column + lane < args.N ? column + lane : args.N - 1;
    rows.first[lane] = weight + (c * args.ldw + k) * kBytes;
  }
  rows.end = weight + ((args.N - 1) * args.ldw + args.K) * kBytes;
  rows.measure();
  return rows;
}

// One chain of `count` steps for each of kRows rows and kLanes columns, straight from the transposed registers.
template <Storage kStorage, int kRows>
LAYERCAST_INLINE void direct_chains(const float* x, int64_t ldx, const Rows& rows, int count, F32 (&sums)[kRows]) {
  using L = Layout<kStorage>;
  for (int i = 0; i < kRows; ++i) sums[i] = splat(0.0f);
  int k = 0;
  U32 words[kLanes];
  const auto step = [&](int word, int limit) __attribute__((always_inline)) {
    F32 elements[L::kPerWord];
    widen<kStorage>(words[word], elements);
    for (int i = 0; i < L::kPerWord; ++i) {
      const int at = word * L::kPerWord + i;
      if (at >= limit) return;
      for (int r = 0; r < kRows; ++r) sums[r] = fma(splat(x[r * ldx + k + at]), elements[i], sums[r]);
    }
  };
  for (; k + L::kPerVector <= count; k += L::kPerVector) {
    load_rows(rows, static_cast<int64_t>(k) * L::kBytes, words);
    transpose(words);
#pragma GCC unroll 16
    for (int word = 0; word < kLanes; ++word) step(word, L::kPerVector);
  }
  if (k == count) return;
  load_rows(rows, static_cast<int64_t>(k) * L::kBytes, words);
  transpose(words);
#pragma GCC unroll 16
  for (int word = 0; word < kLanes; ++word) step(word, count - k);
}

// Adds one chunk's sums to `shard`, for at most kDirectRows rows.
template <Storage kStorage>
LAYERCAST_INLINE void add_chunk_direct(const LinearArgs& args, const Block& block, int64_t k, int count, float* shard) {
  for (int column = 0; column < block.columns; column += kLanes) {
    const Rows weights = weight_rows<kStorage>(args, block.column + column, k);
    with_rows<kDirectRows>(block.rows, [&]<int kRows>() {
      F32 sums[kRows];
      direct_chains<kStorage, kRows>(args.x + block.row * args.ldx + k, args.ldx, weights, count, sums);
      for (int r = 0; r < kRows; ++r) {
        float* sum = shard + r * kBlockColumns + column;
        store(sum, load(sum) + sums[r]);
      }
    });
  }
}

// Rows of x against one packed tile; chunk sums are added to `shard`.
LAYERCAST_INLINE void multiply_tile(const float* x, int64_t ldx, int rows, int count, const float* packed,
                                    float* shard) {
  for (int i = 0; i < rows; i += kTileRows) {
    with_rows<kTileRows>(rows - i < kTileRows ? rows - i : kTileRows, [&]<int kRows>() {
      F32 sums[kRows][kTileVectors];
      chains<kRows, kTileVectors>(x + i * ldx, ldx, packed, kTileColumns, count, sums);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
        for (int j = 0; j < kTileVectors; ++j) {
          float* sum = shard + (i + r) * kBlockColumns + j * kLanes;
          store(sum, load(sum) + sums[r][j]);
        }
      }
    });
  }
}

// Adds one chunk's sums to `shard`, for any number of rows.
template <Storage kStorage>
LAYERCAST_INLINE void add_chunk_packed(const LinearArgs& args, const Block& block, int64_t k, int count, float* shard) {
  alignas(64) float packed[kChunk * kTileColumns];
  alignas(64) float panel[kBlockRows * kChunk];
  const float* x = args.x + block.row * args.ldx + k;
  int64_t ldx = args.ldx;
  if (block.rows > kTileRows) {
    // Rows of x a large power of two apart would share a few sets of the cache.
    for (int i = 0; i < block.rows; ++i) memcpy(panel + i * kChunk, x + i * ldx, sizeof(float) * count);
    x = panel;
    ldx = kChunk;
  }
  for (int column = 0; column < block.columns; column += kTileColumns) {
    for (int j = 0; j < kTileVectors; ++j) {
      const Rows weights = weight_rows<kStorage>(args, block.column + column + j * kLanes, k);
      pack_rows<kStorage>(weights, count, packed + j * kLanes, kTileColumns);
    }
    multiply_tile(x, ldx, block.rows, count, packed, shard + column);
  }
}

void write_block(const LinearArgs& args, const Block& block, const float* sums) {
  alignas(64) float bias[kBlockColumns];
  if (args.bias != nullptr) {
    for (int j = 0; j < block.columns; ++j) bias[j] = read_element(args.bias, block.column + j, args.bias_storage);
  }
  for (int i = 0; i < block.rows; ++i) {
    float* y = args.y + (block.row + i) * args.N + block.column;
    for_each_vector(block.columns, [&](int64_t j, auto lanes) {
      F32 sum = load(sums + i * kBlockColumns + j);
      if (args.bias != nullptr) sum = sum + load(bias + j, lanes);
      store(y + j, canonical(sum), lanes);
    });
  }
}

template <Storage kStorage>
void linear_block(const LinearArgs& args, const Block& block) {
  alignas(64) float waiting[kLevels][kBlockRows * kBlockColumns];
  alignas(64) float shard[kBlockRows * kBlockColumns];
  // Whole vectors, the last one's idle lanes included.
  const int width = (block.columns + kTileColumns - 1) / kTileColumns * kTileColumns;
  const auto each = [&](auto f) {
    for (int i = 0; i < block.rows; ++i) {
      for (int j = 0; j < width; j += kLanes) f(i * kBlockColumns + j);
    }
  };
  for (int s = 0; s < kShards; ++s) {
    each([&](int i) { store(shard + i, splat(0.0f)); });
    const int64_t end = shard_begin(args.K, s + 1);
    for (int64_t k = shard_begin(args.K, s); k < end; k += kChunk) {
      const int count = static_cast<int>(end - k < kChunk ? end - k : kChunk);
      if (block.rows <= kDirectRows) {
        add_chunk_direct<kStorage>(args, block, k, count, shard);
      } else {
        add_chunk_packed<kStorage>(args, block, k, count, shard);
      }
    }
    // Shards joined as a binary counter carries: each odd bit of s closes a subtree.
    int level = 0;
    for (; (s >> level) & 1; ++level) {
      each([&](int i) { store(shard + i, load(waiting[level] + i) + load(shard + i)); });
    }
    if (level < kLevels) each([&](int i) { store(waiting[level] + i, load(shard + i)); });
  }
  write_block(args, block, shard);
}

}  // namespace

void linear(const LinearArgs& args, int64_t begin, int64_t end) {
  // Few rows: one tile of columns at a time, the weights passing by once. Many: more columns share x's chunks.
  const int64_t tiles = args.M > kTileRows ? kBlockTiles : 1;
  for (int64_t unit = begin; unit < end; unit += tiles) {
    const int64_t column = unit * kTileColumns;
    const int64_t last = (unit + tiles < end ? unit + tiles : end) * kTileColumns;
    const int columns = static_cast<int>((last < args.N ? last : args.N) - column);
    for (int64_t row = 0; row < args.M; row += kBlockRows) {
      const int rows = static_cast<int>(args.M - row < kBlockRows ? args.M - row : kBlockRows);
      const Block block = {row, column, rows, columns};
      switch (args.weight_storage) {
        case Storage::kFloat32:
          linear_block<Storage::kFloat32>(args, block);
          break;
        case Storage::kBFloat16:
          linear_block<Storage::kBFloat16>(args, block);
          break;
        case Storage::kFloat16:
          linear_block<Storage::kFloat16>(args, block);
          break;
      }
    }
  }
}

}  // namespace layercast::LAYERCAST_ISA
