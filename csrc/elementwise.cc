// Element by element: exp, log, tanh, activations and their gated forms, the application of rotary tables, the sum over
// experts; and embedding, which moves rows.
#include "contract.h"
#include "kernels.h"
#include "map.h"
#include "storage.h"

namespace layercast::LAYERCAST_ISA {
namespace {

template <class Function>
LAYERCAST_INLINE void map(const ElementwiseArgs& args, int64_t begin, int64_t end, Function f) {
  map(args.x + begin, args.y + begin, end - begin, f);
}

// activation(gate) * up, each rounded.
template <class Function>
LAYERCAST_INLINE void gated(const GatedArgs& args, int64_t begin, int64_t end, Function activation) {
  for (int64_t at = begin; at < end;) {
    const int64_t row = at / args.n, column = at % args.n;
    const int64_t count = end - at < args.n - column ? end - at : args.n - column;
    const float* gate = args.gate + row * args.ld_gate + column;
    const float* up = args.up + row * args.ld_up + column;
    float* y = args.y + at;
    for_each_vector(count, [&](int64_t i, auto lanes) {
      store(y + i, canonical(activation(load(gate + i, lanes)) * load(up + i, lanes)), lanes);
    });
    at += count;
  }
}

}  // namespace

void silu(const ElementwiseArgs& args, int64_t begin, int64_t end) {
  map(args, begin, end, [](F32 v) { return silu(v); });
}

void sigmoid(const ElementwiseArgs& args, int64_t begin, int64_t end) {
  map(args, begin, end, [](F32 v) { return sigmoid(v); });
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

void silu_mul(const GatedArgs& args, int64_t begin, int64_t end) {
  gated(args, begin, end, [](F32 v) { return silu(v); });
}

void gelu_mul(const GatedArgs& args, int64_t begin, int64_t end) {
  gated(args, begin, end, [](F32 v) { return gelu(v); });
}

void gelu_tanh_mul(const GatedArgs& args, int64_t begin, int64_t end) {
  gated(args, begin, end, [](F32 v) { return gelu_tanh(v); });
}

void expert_sum(const ExpertSumArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* x = args.x + row * args.n;
    float* y = args.y + args.tokens[row] * args.n;
    const F32 weight = splat(args.weights[row]);
    for_each_vector(args.n, [&](int64_t i, auto lanes) {
      store(y + i, canonical(load(y + i, lanes) + (weight * load(x + i, lanes))), lanes);
    });
  }
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
