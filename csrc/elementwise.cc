// Element by element: exp, log, silu, the application of rotary tables; and embedding, which moves rows.
#include "contract.h"
#include "kernels.h"
#include "storage.h"

namespace layercast::LAYERCAST_ISA {
namespace {

template <class Function>
LAYERCAST_INLINE void map(const ElementwiseArgs& args, int64_t begin, int64_t end, Function f) {
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) store(args.y + i, canonical(f(load(args.x + i))));
  if (i < end) {
    const int count = static_cast<int>(end - i);
    store_partial(args.y + i, canonical(f(load_partial(args.x + i, count))), count);
  }
}

}  // namespace

void silu(const ElementwiseArgs& args, int64_t begin, int64_t end) {
  map(args, begin, end, [](F32 v) { return silu(v); });
}

void exp(const ElementwiseArgs& args, int64_t begin, int64_t end) {
  map(args, begin, end, [](F32 v) { return exp(v); });
}

void log(const ElementwiseArgs& args, int64_t begin, int64_t end) {
  map(args, begin, end, [](F32 v) { return log(v); });
}

void tanh(const ElementwiseArgs& args, int64_t begin, int64_t end) {
  map(args, begin, end, [](F32 v) { return tanh(v); });
}

void embedding(const EmbeddingArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const char* weight =
        static_cast<const char*>(args.weight) + args.ids[row] * args.hidden * element_size(args.storage);
    float* y = args.y + row * args.hidden;
    for (int64_t i = 0; i < args.hidden; i += kLanes) {
      const int count = static_cast<int>(args.hidden - i < kLanes ? args.hidden - i : kLanes);
      store_partial(y + i, canonical(read_vector(weight, i, count, args.storage)), count);
    }
  }
}

void rotary(const RotaryArgs& args, int64_t begin, int64_t end) {
  const int64_t half = args.R / 2;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t t = unit % args.T, h = unit / args.T % args.H, b = unit / args.T / args.H;
    const float* x = args.x + b * args.stride_b + h * args.stride_h + t * args.stride_t;
    const float* cos = args.cos + (b * args.T + t) * args.R;
    const float* sin = args.sin + (b * args.T + t) * args.R;
    float* y = args.y + unit * args.D;
    for (int64_t i = 0; i < half; i += kLanes) {
      const int count = static_cast<int>(half - i < kLanes ? half - i : kLanes);
      const F32 low = load_partial(x + i, count), high = load_partial(x + half + i, count);
      const F32 first = low * load_partial(cos + i, count) - high * load_partial(sin + i, count);
      const F32 second = high * load_partial(cos + half + i, count) + low * load_partial(sin + half + i, count);
      store_partial(y + i, canonical(first), count);
      store_partial(y + half + i, canonical(second), count);
    }
    for (int64_t i = args.R; i < args.D; ++i) y[i] = x[i] != x[i] ? bitcast<float>(0x7fc00000) : x[i];
  }
}

}  // namespace layercast::LAYERCAST_ISA
