"""Sampling in `generate`: each token drawn by Philox from its own sequence's key and position."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation import StoppingCriteria
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from layercast import ops
from layercast.errors import DtypeError, UnsupportedError, ValueRangeError
from layercast.integrations.transformers.own_tokens import OwnTokens
from layercast.integrations.transformers.processors import described
from layercast.kernels import cpu
from layercast.ops.backends import by_triton
from layercast.ops.sampling import TOP_P_UNIT, sequence_key

DEFAULT_SEED = 0
_WEIGHT_UNIT = 2.0**40
_STEPS = (TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper)
# How many of the likeliest tokens top-p looks at first; nearly always enough.
_FIRST_LOOK = 256


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; see `layercast.ops.sample`.

    Attributes:
        temperature: Divides the logits.
        top_k: Tokens kept, or None for all.
        top_p: Share of the weight kept, or None for all.
        seed: Within 0 .. 2**63 - 1.
        min_p: Least weight kept, as a share of the largest one, or None for all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = DEFAULT_SEED
    min_p: float | None = None

    def draw(self, scores: Tensor, keys: Tensor, positions: Tensor) -> Tensor:
        """One token a row.

        Args:
            scores: Logits, float32, shape (B, V).
            keys: int64, shape (B,): `layercast.ops.sequence_key` of prompt and sample index.
            positions: int64, shape (B,): of the tokens to be drawn.

        Returns:
            int64, shape (B,).
        """
        return ops.sample(
            scores,
            temperature=self.temperature,
            seed=self.seed,
            sequence_keys=keys.to(scores.device),
            positions=positions.to(scores.device),
            top_k=self.top_k,
            top_p=self.top_p,
            min_p=self.min_p,
        )

    def warp(self, scores: Tensor) -> Tensor:
        """The scores tokens are drawn from, as `output_scores` of transformers has them.

        Top-p needs the tokens in descending order only as far as it keeps them.
        Its cut is a share of the total weight, a sum of integers and so exact in
        any order; and the likeliest tokens, ties by the lower index, begin with the
        same ones however many are asked for. So a few are looked at first, and
        more only where these do not reach the cut: the result is that of a full
        sort.

        Args:
            scores: Logits, float32, shape (B, V).

        Returns:
            `scores / temperature`, -inf where top-k, top-p or min-p cut a token off.
        """
        warped = scores / scores.new_full((1,), self.temperature)
        vocabulary = warped.shape[1]
        top_k = min(self.top_k or vocabulary, vocabulary)
        largest = warped.amax(dim=1, keepdim=True)
        kept = warped
        if self.top_p not in (None, 1.0) or top_k < vocabulary:
            values, order = self._likeliest(warped, largest, top_k)
            kept = torch.full_like(warped, -math.inf).scatter_(1, order, values)
        if self.min_p:
            # The largest weight is 2**40, that of exp(0).
            lightest = round(self.min_p * TOP_P_UNIT) << 8
            kept = kept.masked_fill(_weights(kept, largest) < lightest, -math.inf)
        return kept

    def _likeliest(self, warped: Tensor, largest: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
        """Scores and indices, at least of all tokens kept; those that top-p cuts off are -inf."""
        if self.top_p in (None, 1.0):
            return ops.topk(warped, top_k)
        units = max(1, round(self.top_p * TOP_P_UNIT))
        everything = top_k == warped.shape[1]
        width = min(_FIRST_LOOK, top_k) if everything else top_k
        total = _weights(warped, largest).sum(dim=1) if everything else None
        while True:
            values, order = ops.topk(warped, width)
            weights = _weights(values, largest)
            through = weights.cumsum(dim=1)
            cuts = _share(through[:, -1] if total is None else total, units)[:, None]
            if width == top_k or bool((through[:, -1:] >= cuts).all()):
                return values.masked_fill(through - weights >= cuts, -math.inf), order
            width = min(8 * width, top_k)


def _weights(scores: Tensor, largest: Tensor) -> Tensor:
    """`exp(scores - largest)` in units of 2**-40, int64."""
    exp = cpu.exp if scores.is_cpu else by_triton(cpu.exp)
    return (exp(scores - largest).double() * _WEIGHT_UNIT).round().long()


def _share(total: Tensor, units: int) -> Tensor:
    """`total * units / 2**32`, rounded up, by 16-bit parts of `total`: nothing overflows."""
    high, low = total >> 32, total & 0xFFFFFFFF
    upper, lower = (low >> 16) * units, (low & 0xFFFF) * units
    # ceil(x / 2**32) = ceil(ceil(x / 2**16) / 2**16)
    rounded = upper + ((lower + 0xFFFF) >> 16)
    return high * units + ((rounded + 0xFFFF) >> 16)


class SeedRequest(LogitsProcessor):  # type: ignore[misc]
    """Carries the seed through `generate` of transformers, which knows none; changes no score."""

    layercast_exact = True

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Leave the scores as they are."""
        return scores


class PhiloxDraw(LogitsProcessor):  # type: ignore[misc]
    """The last processor: draws each row's token and marks it for the loop's own argmax.

    The mark is +inf in place of the drawn token's score. `Unmark`, asked by the
    loop before anyone else looks, puts the score back.
    """

    layercast_exact = True

    def __init__(self, sampling: Sampling, keys: Tensor, own: OwnTokens, *, warp: bool) -> None:
        """Prepare for one call of `generate`.

        Args:
            sampling: How to draw.
            keys: int64, shape (B,).
            own: Of the batch.
            warp: Whether the scores are asked for.
        """
        self.sampling = sampling
        self.keys = keys.to(own.device)
        self.own = own
        self._warp = warp
        self._marks: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Draw and mark, in place where the scores are not asked for.

        Args:
            input_ids: int64, shape (B, T).
            scores: Float32, shape (B, V), after all other processors.

        Returns:
            The scores with the marks.
        """
        tokens = self.draw(input_ids, scores)[:, None]
        shown = self.sampling.warp(scores) if self._warp else scores
        self._marks.append((shown, tokens, shown.gather(1, tokens)))
        return shown.scatter_(1, tokens, math.inf)

    def draw(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The tokens that follow `input_ids`; the same each time it is asked."""
        return self.sampling.draw(scores, self.keys, self.own.lengths(input_ids.shape[1]))

    def unmark(self, recorded: Sequence[Tensor]) -> None:
        """Put the scores back.

        Args:
            recorded: Scores the loop has kept since the last call, a prefix of those marked.
        """
        for shown, tokens, scores in self._marks:
            shown.scatter_(1, tokens, scores)
        for copy, (_, tokens, scores) in zip(recorded, self._marks, strict=False):
            copy.scatter_(1, tokens, scores)
        self._marks.clear()


class Unmark(StoppingCriteria):  # type: ignore[misc]
    """The first stopping criterion, asked after each choice of tokens; never stops."""

    def __init__(self, draw: PhiloxDraw) -> None:
        self._draw = draw
        self._seen = 0

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Put back the scores of the tokens just drawn."""
        self._draw.unmark(scores[self._seen :] if scores else ())
        self._seen = len(scores) if scores else self._seen
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


class Draft(LogitsProcessor):  # type: ignore[misc]
    """Makes an assistant draft what the model would draw if it had the assistant's logits.

    The same random number at the same position makes a draft most likely to be
    the token then drawn from the model's own logits; whether it is, is checked.
    """

    layercast_exact = True

    def __init__(self, draw: PhiloxDraw) -> None:
        self._draw = draw

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """All of the probability on the drawn token.

        Args:
            input_ids: int64, shape (1, T).
            scores: The assistant's, float32, shape (1, V).

        Returns:
            0 at the drawn token and -inf elsewhere.
        """
        tokens = self._draw.draw(input_ids, scores)
        return torch.full_like(scores, -math.inf).scatter_(1, tokens[:, None], 0.0)


def prepare_draw(
    processors: Iterable[LogitsProcessor], generation_config: Any, own: OwnTokens, rows: int
) -> tuple[LogitsProcessorList, PhiloxDraw]:
    """Take the sampling steps out of a list of processors, into a `PhiloxDraw`.

    Args:
        processors: What `generate` of transformers made of its options and was given.
        generation_config: As merged by it.
        own: Of the batch.
        rows: B.

    Returns:
        The processors that remain, and the draw, to come after them.

    Raises:
        UnsupportedError: A processor comes after the sampling steps, or there is one twice.
        ValueRangeError: The seed is out of range.
        DtypeError: The seed is not an integer.
    """
    remaining, sampling = sampling_of(processors, generation_config)
    samples = generation_config.num_return_sequences or 1
    keys = [sequence_key(own.prompt_ids(row), row % samples) for row in range(rows)]
    draw = PhiloxDraw(
        sampling,
        torch.tensor(keys, dtype=torch.int64),
        own,
        warp=bool(generation_config.output_scores and generation_config.return_dict_in_generate),
    )
    return remaining, draw


def sampling_of(
    processors: Iterable[LogitsProcessor], generation_config: Any
) -> tuple[LogitsProcessorList, Sampling]:
    """Take the sampling steps out of a list of processors.

    Args:
        processors: See `prepare_draw`.
        generation_config: Its `seed` counts where no processor brings one.

    Returns:
        The processors that remain, and how to draw.

    Raises:
        UnsupportedError: See `prepare_draw`.
        ValueRangeError: See `prepare_draw`.
        DtypeError: See `prepare_draw`.
    """
    seed = getattr(generation_config, "seed", None)
    remaining, warpers = LogitsProcessorList(), {}
    for processor in processors:
        kind = type(processor)
        if kind is SeedRequest:
            seed = processor.seed
        elif kind in _STEPS:
            if kind in warpers:
                raise UnsupportedError(
                    f"generate: `logits_processor` must not repeat a sampling step, got a second "
                    f"{kind.__name__}. Set temperature, top_k, top_p and min_p by their options."
                )
            warpers[kind] = processor
        elif warpers:
            raise UnsupportedError(
                "generate: `logits_processor` must hold no step beside temperature, top_k, top_p "
                f"and min_p when sampling on a layercast model, got {described(processor)}. Leave "
                "it out."
            )
        else:
            remaining.append(processor)
    sampling = Sampling(
        temperature=getattr(warpers.get(TemperatureLogitsWarper), "temperature", 1.0),
        top_k=getattr(warpers.get(TopKLogitsWarper), "top_k", None),
        top_p=getattr(warpers.get(TopPLogitsWarper), "top_p", None),
        seed=checked_seed(seed),
        min_p=getattr(warpers.get(MinPLogitsWarper), "min_p", None),
    )
    return remaining, sampling


def checked_seed(seed: int | None) -> int:
    """The seed to draw by.

    Args:
        seed: As given; None for the default.

    Returns:
        Within 0 .. 2**63 - 1.

    Raises:
        ValueRangeError: Out of range.
        DtypeError: Not an integer.
    """
    if seed is None:
        return DEFAULT_SEED
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise DtypeError(
            f"generate: `seed` must be an integer, got {type(seed).__name__}. Leave it out for "
            f"{DEFAULT_SEED}."
        )
    if not 0 <= seed < 2**63:
        raise ValueRangeError(
            f"generate: `seed` must lie within 0 .. 2**63 - 1, got {seed}. Reduce it to 63 bits."
        )
    return seed
