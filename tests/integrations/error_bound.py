"""Error analysis of a Llama-style model: float64 logits, and how far any float32 ones may be.

A sum of n products in float32, in any order, is off by at most lambda * sqrt(n) * u * sum |a||b|,
u = 2^-24, but with a probability below 2 n exp(-lambda^2 / 2) if its roundings are independent
with mean zero (Higham & Mary 2019, doi:10.1137/18M1226312); every other operation rounds a few
times. An operation's own error reaches a logit through the derivative of that logit by the
operation's result, which float64 autograd gives. The errors of different results being independent
too, the logit is off by more than lambda times the root of the sum of their squares only with a
probability of 2 exp(-lambda^2 / 2) (Hoeffding): at lambda = 6, 3e-8. First order in the errors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

U = 2.0**-24
LAMBDA = 6.0


def gamma(n: int) -> float:
    """Error of a sum of n terms relative to the sum of their magnitudes, without lambda."""
    return n**0.5 * U


class Analysis:
    """Float64 forward pass of a stock Llama, Mistral, Qwen2 or Qwen3 given in float32."""

    def __init__(self, stock: nn.Module, tokens: Tensor) -> None:
        self._results: list[Tensor] = []
        self._errors: list[Tensor] = []
        with torch.enable_grad():
            self._logits = self._model(stock, tokens)
        self.logits = self._logits.detach()

    def bound(self, position: int, token: int) -> float:
        """Of the error of one logit."""
        logit = self._logits[position, token]
        slopes = torch.autograd.grad(logit, self._results, retain_graph=True, allow_unused=True)
        terms = zip(slopes, self._errors, strict=True)
        squares = sum((s * e).pow(2).sum() for s, e in terms if s is not None)
        return LAMBDA * float(squares) ** 0.5

    def _own(self, result: Tensor, error: Tensor) -> Tensor:
        """Note that an operation's result may be off by `error`, elementwise."""
        if not result.requires_grad:
            result.requires_grad_()
        self._results.append(result)
        self._errors.append(error.detach().abs())
        return result

    def _model(self, stock: nn.Module, tokens: Tensor) -> Tensor:
        decoder = stock.model
        x = decoder.embed_tokens.weight[tokens].detach().double()  # exact
        table = self._rotary_table(decoder.rotary_emb.inv_freq.double(), len(tokens))
        for index, layer in enumerate(decoder.layers):
            window = _window(stock.config, index)
            h = self._norm(layer.input_layernorm, x)
            x = self._round(x + self._attention(layer.self_attn, h, table, window))
            h = self._norm(layer.post_attention_layernorm, x)
            gate = self._linear(layer.mlp.gate_proj, h)
            gate = gate * gate.sigmoid()
            gate = self._own(gate, 8 * U * gate)  # an exponential, an addition, a division
            gated = self._round(gate * self._linear(layer.mlp.up_proj, h))
            x = self._round(x + self._linear(layer.mlp.down_proj, gated))
        return self._linear(stock.lm_head, self._norm(decoder.norm, x))

    def _round(self, result: Tensor) -> Tensor:
        return self._own(result, U * result)

    def _linear(self, module: nn.Linear, x: Tensor) -> Tensor:
        w = module.weight.detach().double()
        result, size = x @ w.T, x.abs() @ w.abs().T
        if module.bias is not None:
            bias = module.bias.detach().double()
            result, size = result + bias, size + bias.abs()
        return self._own(result, gamma(w.shape[1] + 1) * size)

    def _norm(self, module: nn.Module, x: Tensor) -> Tensor:
        scale = (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).rsqrt()
        result = x * scale * module.weight.detach().double()
        # a sum of squares, then division, eps, root, reciprocal and two products
        return self._own(result, gamma(x.shape[-1] + 8) * result)

    def _rotary_table(self, inv_freq: Tensor, length: int) -> tuple[Tensor, Tensor]:
        angle = torch.arange(length).double()[:, None] * inv_freq.detach()
        angle = torch.cat((angle, angle), -1)
        # A frequency as a float32 power is off by some 16 u, the angle by its rounding, and a
        # library's cosine by 2 u: relative to the angle, and to 1.
        error = angle * 18 * U + 2 * U
        return self._own(angle.cos(), error), self._own(angle.sin(), error)

    def _rotate(self, x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
        cos, sin = table
        first, second = x.chunk(2, -1)
        a, b = x * cos, torch.cat((-second, first), -1) * sin
        return self._own(a + b, 2 * U * (a.abs() + b.abs()))

    def _attention(
        self, module: nn.Module, x: Tensor, table: tuple[Tensor, Tensor], window: int | None
    ) -> Tensor:
        T, D = x.shape[0], module.head_dim

        def heads(projection: nn.Linear, norm: str | None = None) -> Tensor:
            y = self._linear(projection, x).view(T, -1, D).transpose(0, 1)
            return self._norm(getattr(module, norm), y) if hasattr(module, norm or "") else y

        q = self._rotate(heads(module.q_proj, "q_norm"), table)
        k = self._rotate(heads(module.k_proj, "k_norm"), table)
        v = heads(module.v_proj)
        groups = q.shape[0] // k.shape[0]
        k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
        size = q.abs() @ k.abs().mT * module.scaling
        scores = self._own(q @ k.mT * module.scaling, gamma(D + 1) * size)
        distance = torch.arange(T)[:, None] - torch.arange(T)
        hidden = (distance < 0) | (distance >= (window or T))
        scores = scores.masked_fill(hidden, float("-inf"))
        below = (scores.amax(-1, keepdim=True) - scores).masked_fill(hidden, 0.0)
        p = scores.softmax(-1)
        # the rounded difference to the maximum, an exponential, the sum, rescalings, a division
        p = self._own(p, p * (below * U + gamma(T + 16)))
        o = self._own(p @ v, gamma(T) * (p @ v.abs()))
        return self._linear(module.o_proj, o.transpose(0, 1).reshape(T, -1))


def _window(config, layer: int) -> int | None:
    types = getattr(config, "layer_types", None)
    if types is not None and types[layer] == "full_attention":
        return None
    return getattr(config, "sliding_window", None)
