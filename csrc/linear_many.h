// `linear` for many rows of x: the widened weights of a tile (a chunk of k, a few vectors of columns) are kept in cache
// and serve every row of a block from there. The rows of x are laid out beforehand, once for all threads, as they will
// be read: rows of x itself, a large power of two apart, would share a few sets of the cache.
#pragma once

#include <cstdlib>

#include "linear_sums.h"
#include "tile.h"
#include "weight_columns.h"

namespace layercast::LAYERCAST_ISA {
namespace {

// Rows of x in a block, and elements in the chunks of x that its columns share: with the sums of a block they fit the
// second-level cache of processors that have such vectors, 512 KB where they are short.
constexpr int kBlockRows = (kLanes == 16 ? 57 : kLanes == 8 ? 24 : 29) * kTileRows;
constexpr int kPanel = (kLanes == 16 ? 128 : 40) * 1024;
// Tiles of columns that use these chunks one after the other: the more there are, the less often x comes from afar.
constexpr int kBlockTiles = kLanes == 8 ? 8 : 5;
constexpr int kBlockColumns = kBlockTiles * kTileColumns;
constexpr int kPitch = kBlockColumns + kLanes;  // of the sums: rows must not share a few sets of the cache
constexpr int kIntoL2 = 2;                      // for __builtin_prefetch

// Part of y: rows x columns.
struct Block {
  int64_t row, column;
  int rows, columns;
};

// What a thread works in: a tile of widened weights, and sums, kPitch apart: [level] is of 2^level shards and waits for
// its sibling, the last one is in the making.
struct Workspace {
  alignas(64) float packed[kChunk * kTileColumns];
  alignas(64) float sums[kLevels + 1][kBlockRows * kPitch];
};

// Freed with its thread.
class OwnWorkspace {
 public:
  ~OwnWorkspace() { free(work_); }
  // Null where memory is out.
  Workspace* get() {
    if (work_ == nullptr) work_ = static_cast<Workspace*>(aligned_alloc(alignof(Workspace), sizeof(Workspace)));
    return work_;
  }

 private:
  Workspace* work_ = nullptr;
};

// Where a tile's chunk sums go: added to the shard's so far and then, with its last chunk, to what waits in the tree.
struct Join {
  const float* shard;  // null in a shard's first chunk: from +0
  const float* waiting[kLevels];
  int levels;
  float* out;
};

// A stretch of weights that is asked for while something else is computed: a line of it, or the next one, with each
// step.
struct Stretch {
  const char* first;
  int64_t advance;  // bytes a step
};

// kRows rows of x, a chunk of each in `panel`, against one packed tile; `at` is the tile's first sum. A function of its
// own: its sums fill the register file.
template <int kRows>
__attribute__((noinline)) void multiply_tile(const float* panel, const float* packed, int count, const Join& join,
                                             int64_t at, const Stretch& ahead) {
  F32 sums[kRows][kTileVectors];
  chains<kRows, kTileVectors>(panel, kChunk, packed, kTileColumns, count, sums,
                              [&](int k) __attribute__((always_inline)) {
                                __builtin_prefetch(panel + kRows * kChunk + 16 * k);
                                __builtin_prefetch(ahead.first + ahead.advance * k, 0, kIntoL2);
                              });
  const auto each = [&](auto f) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int j = 0; j < kTileVectors; ++j) sums[r][j] = f(at + r * kPitch + j * kLanes, sums[r][j]);
    }
  };
  if (join.shard == nullptr) {
    each([](int64_t, F32 sum) __attribute__((always_inline)) { return sum + 0.0f; });
  } else {
    each([&](int64_t i, F32 sum) __attribute__((always_inline)) { return load(join.shard + i) + sum; });
  }
  for (int level = 0; level < join.levels; ++level) {
    const float* waiting = join.waiting[level];
    each([&](int64_t i, F32 sum) __attribute__((always_inline)) { return load(waiting + i) + sum; });
  }
  each([&](int64_t i, F32 sum) __attribute__((always_inline)) {
    store(join.out + i, sum);
    return sum;
  });
}

// Weights to be asked for before their turn: `bytes` of each of `rows` rows, in stretches, as many as there are
// products to be computed meanwhile. Where rows are short, hardware does not see what comes next.
class WeightsAhead {
 public:
  // No rows: `hot`, which is in cache, is asked for instead.
  WeightsAhead(const char* first, int64_t pitch, int64_t rows, int64_t bytes, int64_t products, const void* hot)
      : row_(first), pitch_(pitch) {
    if (pitch == bytes && rows > 0) {
      bytes *= rows;
      rows = 1;
    }
    per_row_ = rows > 0 ? products / rows : 0;
    if (per_row_ == 0) {
      row_ = static_cast<const char*>(hot);
      return;
    }
    rows_ = rows;
    advance_ = (bytes + kSteps * per_row_ - 1) / (kSteps * per_row_);
  }
  LAYERCAST_INLINE Stretch next() {
    if (taken_ == per_row_ && rows_ > 1) {
      row_ += pitch_;
      --rows_;
      taken_ = 0;
    }
    return {row_ + (taken_ < per_row_ ? taken_++ : taken_) * kSteps * advance_, advance_};
  }

 private:
  static constexpr int64_t kSteps = kChunk;
  const char* row_;
  int64_t pitch_, per_row_, rows_ = 0, taken_ = 0, advance_ = 0;
};

int64_t chunks_in(const LinearArgs& args, int s) {
  return (shard_bound(args, s + 1) - shard_bound(args, s) + kChunk - 1) / kChunk;
}

// Rows [row, end) of x into args.packed: chunk by chunk (each of kChunk elements, however few it holds), row by row.
void pack_rows_of_x(const LinearArgs& args, int64_t row, int64_t end) {
  float* packed = args.packed;
  for (int s = 0; s < args.shards; ++s) {
    const int64_t last = shard_bound(args, s + 1);
    for (int64_t k = shard_bound(args, s); k < last; k += kChunk, packed += args.M * kChunk) {
      const auto count = static_cast<size_t>(last - k < kChunk ? last - k : kChunk);
      for (int64_t i = row; i < end; ++i) memcpy(packed + i * kChunk, args.x + i * args.ldx + k, sizeof(float) * count);
    }
  }
}

// Where a chunk lies: of which shard, from which k on, and the how manieth of x it is.
struct Chunk {
  int s = 0;
  int64_t k = 0, index = 0;
};

// The chunk after `chunk`. An empty shard has one too, which takes no room in x: it is +0 and has its place in the
// tree.
LAYERCAST_INLINE Chunk next_chunk(const LinearArgs& args, const Chunk& chunk) {
  const int64_t last = shard_bound(args, chunk.s + 1);
  const int64_t index = chunk.index + (chunk.k < last);
  if (chunk.k + kChunk < last) return {chunk.s, chunk.k + kChunk, index};
  return {chunk.s + 1, last, index};
}

// The weights that follow those of chunks [first, end) and the tile at `column` of the block: of the next tile, or of
// the first one further along k, or of the next block. Rows of transposed ones ask ahead by themselves.
template <int kBytes>
WeightsAhead weights_ahead(const LinearArgs& args, const Block& block, int column, const Chunk& first, const Chunk& end,
                           const void* hot) {
  const bool more = column + kTileColumns < block.columns, over = end.k >= args.K;
  const int64_t next = block.column + (more || over ? column + kTileColumns : 0);
  const int64_t k = more ? first.k : over ? 0 : end.k;
  const int64_t left = args.transposed || next >= args.N ? 0 : args.N - next;
  const int64_t tiles_of_rows = (block.rows + kTileRows - 1) / kTileRows;
  return WeightsAhead(static_cast<const char*>(args.weight) + (left > 0 ? next * args.ldw + k : 0) * kBytes,
                      args.ldw * kBytes, left < kTileColumns ? left : kTileColumns, (end.k - first.k) * kBytes,
                      (end.index - first.index) * tiles_of_rows, hot);
}

// Chunks from `first` to before `end`: a tile of the weights runs along all of them.
template <Storage kStorage, class Columns>
void add_chunks(const LinearArgs& args, const Block& block, const Chunk& first, const Chunk& end, Workspace& work) {
  constexpr int kBytes = Layout<kStorage>::kBytes;
  for (int column = 0; column < block.columns; column += kTileColumns) {
    // Vectors past the last column are packed from it once more, and their sums go nowhere.
    Columns columns[kTileVectors];
    for (int j = 0; j < kTileVectors; ++j) {
      const int64_t c = block.column + column + j * kLanes;
      columns[j] = Columns(args, c < args.N ? c : args.N - 1);
    }
    WeightsAhead ahead = weights_ahead<kBytes>(args, block, column, first, end, work.packed);
    for (Chunk chunk = first; chunk.s != end.s || chunk.k != end.k;) {
      const int64_t last = shard_bound(args, chunk.s + 1);
      const int count = static_cast<int>(last - chunk.k < kChunk ? last - chunk.k : kChunk);
      for (int j = 0; j < kTileVectors; ++j) columns[j].pack(chunk.k, count, work.packed + j * kLanes, kTileColumns);
      Join join = {chunk.k == shard_bound(args, chunk.s) ? nullptr : work.sums[kLevels], {}, 0, work.sums[kLevels]};
      if (chunk.k + count == last) {
        // A binary counter carries: each odd bit of s closes a subtree.
        for (; (chunk.s >> join.levels) & 1; ++join.levels) join.waiting[join.levels] = work.sums[join.levels];
        join.out = work.sums[join.levels];
      }
      const float* panel = args.packed + (chunk.index * args.M + block.row) * kChunk;
      // As many tiles as there must be, of rows as equal as can be: a tile of a row or two takes as long as one of
      // several, since the steps of a chain wait for each other.
      for (int i = 0, tiles = (block.rows + kTileRows - 1) / kTileRows; tiles > 0; --tiles) {
        const int rows = (block.rows - i + tiles - 1) / tiles;
        with_rows<kTileRows>(rows, [&]<int kRows>() {
          multiply_tile<kRows>(panel + i * kChunk, work.packed, count, join, i * kPitch + column, ahead.next());
        });
        i += rows;
      }
      chunk = next_chunk(args, chunk);
    }
  }
}

template <Storage kStorage, class Columns>
void linear_block(const LinearArgs& args, const Block& block, Workspace& work) {
  const int64_t span = kPanel / (block.rows * kChunk);
  for (Chunk first; first.s < args.shards;) {
    Chunk end = first;
    for (int64_t i = 0; i < span && end.s < args.shards; ++i) end = next_chunk(args, end);
    add_chunks<kStorage, Columns>(args, block, first, end, work);
    first = end;
  }
  const float* sums = work.sums[__builtin_ctz(static_cast<unsigned>(args.shards))];
  for (int i = 0; i < block.rows; ++i) {
    write_row(args, block.row + i, block.column, block.columns, sums + i * kPitch);
  }
}

// Rows of x in a block: as many as fit, or fewer where the columns alone would leave threads without work.
int64_t block_rows(const LinearArgs& args) {
  const int64_t tiles = (args.N + kTileColumns - 1) / kTileColumns;
  const int64_t least = (args.M + kBlockRows - 1) / kBlockRows;
  const int64_t wanted = (32 + tiles - 1) / tiles;
  const int64_t most = (args.M + 4 * kTileRows - 1) / (4 * kTileRows);
  int64_t blocks = wanted < most ? wanted : most;
  blocks = blocks < least ? least : blocks;
  return ((args.M + blocks - 1) / blocks + kTileRows - 1) / kTileRows * kTileRows;
}

// Rows [row, row + rows) against the columns of tiles [begin, end). False, with nothing done, where memory is out.
template <Storage kStorage, class Columns>
bool linear_many(const LinearArgs& args, int64_t row, int64_t rows, int64_t begin, int64_t end) {
  static thread_local OwnWorkspace own;
  Workspace* work = own.get();
  if (work == nullptr) return false;
  for (int64_t blocks = (end - begin + kBlockTiles - 1) / kBlockTiles; blocks > 0; --blocks) {
    const int64_t next = begin + (end - begin + blocks - 1) / blocks;  // of equal width, as near as can be
    const int64_t column = begin * kTileColumns, last = next * kTileColumns;
    linear_block<kStorage, Columns>(
        args, {row, column, static_cast<int>(rows), static_cast<int>((last < args.N ? last : args.N) - column)}, *work);
    begin = next;
  }
  return true;
}

}  // namespace
}  // namespace layercast::LAYERCAST_ISA
