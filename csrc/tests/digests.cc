#include "digests.h"

#include <bit>
#include <cstdio>
#include <cstring>

namespace layercast::digests {
namespace {

uint64_t state = 0;

}  // namespace

void seed(uint64_t value) { state = value; }

// SplitMix64.
uint64_t random_bits() {
  uint64_t z = (state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

std::vector<float> values(size_t count, int spread) {
  std::vector<float> v(count);
  for (float& x : v) {
    const uint64_t r = random_bits();
    const auto exponent = static_cast<uint32_t>(127 - spread + static_cast<int>((r >> 40) % (2 * spread + 1)));
    x = std::bit_cast<float>(static_cast<uint32_t>(r & 0x807fffffu) | (exponent << 23));
  }
  return v;
}

std::vector<float> patterns(size_t count) {
  std::vector<float> v(count);
  for (float& x : v) x = std::bit_cast<float>(static_cast<uint32_t>(random_bits()));
  return v;
}

std::vector<uint8_t> stored(const std::vector<float>& wide, Storage storage) {
  std::vector<uint8_t> bytes(wide.size() * (storage == Storage::kFloat32 ? 4 : 2));
  for (size_t i = 0; i < wide.size(); ++i) {
    const auto bits = std::bit_cast<uint32_t>(wide[i]);
    const auto word = static_cast<uint16_t>(storage == Storage::kBFloat16 ? bits >> 16 : bits >> 9);
    if (storage == Storage::kFloat32) {
      std::memcpy(bytes.data() + 4 * i, &bits, 4);
    } else {
      std::memcpy(bytes.data() + 2 * i, &word, 2);
    }
  }
  return bytes;
}

// FNV-1a over the bytes.
void print_digest(const std::string& name, const void* data, size_t bytes) {
  uint64_t digest = 0xcbf29ce484222325u;
  for (size_t i = 0; i < bytes; ++i) digest = (digest ^ static_cast<const uint8_t*>(data)[i]) * 0x100000001b3u;
  std::printf("%s %016llx\n", name.c_str(), static_cast<unsigned long long>(digest));
}

}  // namespace layercast::digests
