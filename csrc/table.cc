// This instruction set's kernels in one table.
#include "kernels.h"
#include "tile.h"

namespace layercast::LAYERCAST_ISA {

#define LAYERCAST_STRING_(x) #x
#define LAYERCAST_STRING(x) LAYERCAST_STRING_(x)

void linear(const LinearArgs&, int64_t, int64_t);
void attention(const AttentionArgs&, int64_t, int64_t);
void embedding(const EmbeddingArgs&, int64_t, int64_t);
void rms_norm(const NormArgs&, int64_t, int64_t);
void layer_norm(const NormArgs&, int64_t, int64_t);
void softmax(const RowArgs&, int64_t, int64_t);
void log_softmax(const RowArgs&, int64_t, int64_t);
void argmax(const ArgmaxArgs&, int64_t, int64_t);
void dot(const DotArgs&, int64_t, int64_t);
void sampling_scores(const ScoreArgs&, int64_t, int64_t);
void rotary(const RotaryArgs&, int64_t, int64_t);
void silu(const ElementwiseArgs&, int64_t, int64_t);
void exp(const ElementwiseArgs&, int64_t, int64_t);
void log(const ElementwiseArgs&, int64_t, int64_t);
void tanh(const ElementwiseArgs&, int64_t, int64_t);
void gelu(const ElementwiseArgs&, int64_t, int64_t);
void gelu_tanh(const ElementwiseArgs&, int64_t, int64_t);
void fma_rate(const FmaRateArgs&, int64_t, int64_t);

const Kernels& kernels() {
  static constexpr Kernels table = {
      .name = LAYERCAST_STRING(LAYERCAST_ISA),
      .linear_unit = kTileColumns,
      .attention_unit = kQueryRows,
      .linear = linear,
      .attention = attention,
      .embedding = embedding,
      .rms_norm = rms_norm,
      .layer_norm = layer_norm,
      .softmax = softmax,
      .log_softmax = log_softmax,
      .argmax = argmax,
      .dot = dot,
      .sampling_scores = sampling_scores,
      .rotary = rotary,
      .silu = silu,
      .exp = exp,
      .log = log,
      .tanh = tanh,
      .gelu = gelu,
      .gelu_tanh = gelu_tanh,
      .fma_rate = fma_rate,
  };
  return table;
}

}  // namespace layercast::LAYERCAST_ISA
