// Operations on one row at a time: rms_norm, layer_norm and dot.
#include "contract.h"
#include "kernels.h"
#include "reduce.h"
#include "storage.h"

namespace layercast::LAYERCAST_ISA {
namespace {

// Calls f.template operator()<storage>() for a storage type known only at run time.
template <class Function>
LAYERCAST_INLINE void with_storage(Storage storage, Function&& f) {
  switch (storage) {
    case Storage::kFloat32:
      return f.template operator()<Storage::kFloat32>();
    case Storage::kBFloat16:
      return f.template operator()<Storage::kBFloat16>();
    case Storage::kFloat16:
      return f.template operator()<Storage::kFloat16>();
  }
}

}  // namespace

void rms_norm(const NormArgs& args, int64_t begin, int64_t end) {
  with_storage(args.storage, [&]<Storage kStorage>() {
    const F32 offset = splat(1.0f);
    for (int64_t row = begin; row < end; ++row) {
      const float* x = args.x + row * args.hidden;
      float* y = args.y + row * args.hidden;
      const F32 mean = splat(dot(x, x, args.hidden)) / static_cast<float>(args.hidden);
      const F32 scale = 1.0f / sqrt(mean + args.eps);
      const auto scaled = [&](auto weight) __attribute__((always_inline)) {
        for_each_vector(args.hidden, [&](int64_t i, auto lanes) {
          store(y + i, canonical((load(x + i, lanes) * scale) * weight(i, lanes)), lanes);
        });
      };
      if (args.unit_offset) {
        scaled([&](int64_t i, auto lanes) { return offset + read_vector(args.weight, i, lanes, kStorage); });
      } else {
        scaled([&](int64_t i, auto lanes) { return read_vector(args.weight, i, lanes, kStorage); });
      }
    }
  });
}

void layer_norm(const NormArgs& args, int64_t begin, int64_t end) {
  const auto n = static_cast<float>(args.hidden);
  for (int64_t row = begin; row < end; ++row) {
    const float* x = args.x + row * args.hidden;
    float* y = args.y + row * args.hidden;
    const F32 mean = splat(dot(x, nullptr, args.hidden)) / n;
    for_each_vector(args.hidden, [&](int64_t i, auto lanes) { store(y + i, load(x + i, lanes) - mean, lanes); });
    const F32 variance = splat(dot(y, y, args.hidden)) / n;
    const F32 scale = 1.0f / sqrt(variance + args.eps);
    for_each_vector(args.hidden, [&](int64_t i, auto lanes) {
      F32 value = load(y + i, lanes) * scale;
      if (args.weight != nullptr) value = value * read_vector(args.weight, i, lanes, args.storage);
      if (args.bias != nullptr) value = value + read_vector(args.bias, i, lanes, args.bias_storage);
      store(y + i, canonical(value), lanes);
    });
  }
}

void dot(const DotArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float sum = dot(args.x + row * args.n, args.w + row * args.ldw, args.n);
    args.y[row] = sum != sum ? bitcast<float>(0x7fc00000) : sum;
  }
}

}  // namespace layercast::LAYERCAST_ISA
