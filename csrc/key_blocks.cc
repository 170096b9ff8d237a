#include "key_blocks.h"

#include <algorithm>
#include <utility>

namespace layercast {
namespace {

constexpr int64_t kKeyBlock = 64;

// False where the position is taken already.
bool place(KeyBlocks& found, int64_t first_block, int64_t position, int32_t slot) {
  const int64_t index = position / kKeyBlock;
  const auto size = static_cast<int64_t>(found.blocks.size());
  if (size == first_block || found.blocks.back().index != index) found.blocks.push_back({index, 0, {}});
  KeyBlock& block = found.blocks.back();
  const uint64_t bit = uint64_t{1} << (position % kKeyBlock);
  if ((block.present & bit) != 0) return false;
  block.present |= bit;
  block.slots[position % kKeyBlock] = slot;
  return true;
}

}  // namespace

KeyBlocks find_key_blocks(const int64_t* key_positions, int64_t B, int64_t Tk) {
  KeyBlocks found;
  found.offsets.push_back(0);
  std::vector<std::pair<int64_t, int32_t>> order;
  for (int64_t b = 0; b < B; ++b) {
    const int64_t* positions = key_positions + b * Tk;
    order.clear();
    bool ascending = true;
    int64_t last = -1;
    for (int64_t slot = 0; slot < Tk; ++slot) {
      if (positions[slot] < 0) continue;
      ascending = ascending && positions[slot] > last;
      last = positions[slot];
      order.emplace_back(positions[slot], static_cast<int32_t>(slot));
    }
    if (!ascending) std::sort(order.begin(), order.end());
    const int64_t first_block = found.offsets.back();
    for (const auto& [position, slot] : order) {
      if (!place(found, first_block, position, slot) && found.duplicate < 0) found.duplicate = position;
    }
    found.offsets.push_back(static_cast<int64_t>(found.blocks.size()));
  }
  return found;
}

void add_paged_blocks(const int64_t* block_table, int64_t length, int64_t page_size, int64_t page_slots,
                      KeyBlocks& found) {
  if (found.offsets.empty()) found.offsets.push_back(0);
  for (int64_t first = 0; first < length; first += kKeyBlock) {
    const int64_t count = length - first < kKeyBlock ? length - first : kKeyBlock;
    KeyBlock& block = found.blocks.emplace_back();
    block.index = first / kKeyBlock;
    block.present = count == kKeyBlock ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
    for (int64_t j = 0; j < count; ++j) {
      const int64_t position = first + j;
      block.slots[j] = static_cast<int32_t>(block_table[position / page_size] * page_slots + position % page_size);
    }
  }
  found.offsets.push_back(static_cast<int64_t>(found.blocks.size()));
}

}  // namespace layercast
