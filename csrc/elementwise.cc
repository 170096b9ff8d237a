// Element by element: exp, log, tanh and activations, the application of rotary tables; and embedding, which moves
// rows.
#include "contract.h"
#include "kernels.h"
#include "storage.h"

namespace layercast::LAYERCAST_ISA {
namespace {

template <class Function>
LAYERCAST_INLINE void map(const ElementwiseArgs& args, int64_t begin, int64_t end, Function f) {
  const float* x = args.x + begin;
  float* y = args.y + begin;
  for_each_vector(end - begin, [&](int64_t i, auto lanes) { store(y + i, canonical(f(load(x + i, lanes))), lanes); });
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

void gelu(const ElementwiseArgs& args, int64_t begin, int64_t end) {
  map(args, begin, end, [](F32 v) { return gelu(v); });
}

void gelu_tanh(const ElementwiseArgs& args, int64_t begin, int64_t end) {
  map(args, begin, end, [](F32 v) { return gelu_tanh(v); });
}

void embedding(const EmbeddingArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const char* weight =
        static_cast<const char*>(args.weight) + args.ids[row] * args.hidden * element_size(args.storage);
    float* y = args.y + row * args.hidden;
    for_each_vector(args.hidden, [&](int64_t i, auto lanes) {
      store(y + i, canonical(read_vector(weight, i, lanes, args.storage)), lanes);
    });
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
    for_each_vector(half, [&](int64_t i, auto lanes) {
      const F32 low = load(x + i, lanes), high = load(x + half + i, lanes);
      const F32 first = low * load(cos + i, lanes) - high * load(sin + i, lanes);
      const F32 second = high * load(cos + half + i, lanes) + low * load(sin + half + i, lanes);
      store(y + i, canonical(first), lanes);
      store(y + half + i, canonical(second), lanes);
    });
    for (int64_t i = args.R; i < args.D; ++i) y[i] = x[i] != x[i] ? bitcast<float>(0x7fc00000) : x[i];
  }
}

}  // namespace layercast::LAYERCAST_ISA
