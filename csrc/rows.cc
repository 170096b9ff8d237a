// Operations on one row at a time: rms_norm, layer_norm, softmax, log_softmax, argmax, dot, and the scores of sampling.
#include "contract.h"
#include "kernels.h"
#include "reduce.h"
#include "storage.h"

namespace layercast::LAYERCAST_ISA {
namespace {

// The largest element, NaN where there is one, -inf of nothing.
float row_maximum(const float* x, int64_t n) {
  F32 largest = splat(-infinity());
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) largest = maximum(largest, load(x + i));
  float result = largest_lane(largest);
  for (; i < n; ++i) {
    const float larger = result > x[i] ? result : x[i];
    result = result != result ? result : larger;
  }
  return result;
}

// y = f(x), NaN made canonical.
template <class Function>
LAYERCAST_INLINE void map(const float* x, float* y, int64_t n, Function f) {
  for_each_vector(n, [&](int64_t i, auto lanes) { store(y + i, canonical(f(load(x + i, lanes))), lanes); });
}

}  // namespace

void rms_norm(const NormArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* x = args.x + row * args.hidden;
    float* y = args.y + row * args.hidden;
    const F32 mean = splat(dot(x, x, args.hidden)) / static_cast<float>(args.hidden);
    const F32 scale = 1.0f / sqrt(mean + args.eps);
    for_each_vector(args.hidden, [&](int64_t i, auto lanes) {
      F32 w = read_vector(args.weight, i, lanes, args.storage);
      if (args.unit_offset) w = 1.0f + w;
      store(y + i, canonical((load(x + i, lanes) * scale) * w), lanes);
    });
  }
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

void softmax(const RowArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* x = args.x + row * args.n;
    float* y = args.y + row * args.n;
    const F32 largest = splat(row_maximum(x, args.n));
    map(x, y, args.n, [&](F32 v) { return exp(v - largest); });
    const F32 total = splat(dot(y, nullptr, args.n));
    map(y, y, args.n, [&](F32 v) { return v / total; });
  }
}

void log_softmax(const RowArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* x = args.x + row * args.n;
    float* y = args.y + row * args.n;
    const F32 largest = splat(row_maximum(x, args.n));
    map(x, y, args.n, [&](F32 v) { return exp(v - largest); });
    const F32 log_total = log(splat(dot(y, nullptr, args.n)));
    map(x, y, args.n, [&](F32 v) { return (v - largest) - log_total; });
  }
}

void sampling_scores(const ScoreArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    float* scores = args.scores + row * args.n;
    const F32 temperature = splat(args.temperature);
    map(args.x + row * args.n, scores, args.n, [&](F32 v) { return v / temperature; });
    const F32 largest = splat(row_maximum(scores, args.n));
    map(scores, args.exponentials + row * args.n, args.n, [&](F32 v) { return exp(v - largest); });
  }
}

void argmax(const ArgmaxArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float* x = args.x + row * args.n;
    const float largest = row_maximum(x, args.n);
    int64_t i = 0;
    // The first that is the largest, or the first NaN.
    while (largest != largest ? x[i] == x[i] : x[i] != largest) ++i;
    args.y[row] = i;
  }
}

void dot(const DotArgs& args, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const float sum = dot(args.x + row * args.n, args.w + row * args.ldw, args.n);
    args.y[row] = sum != sum ? bitcast<float>(0x7fc00000) : sum;
  }
}

}  // namespace layercast::LAYERCAST_ISA
