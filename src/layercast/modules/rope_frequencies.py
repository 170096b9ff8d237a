"""Inverse frequencies of rotary position embeddings under the scalings of long-context models.

Everything is computed in 50-digit decimal arithmetic and rounded once to
binary64: `pow` and `log` of a C library differ in their last bit between
machines, and a frequency off by one bit moves every angle far from the start.
Scalings that look at the longest position of a batch would make a sequence's
bits depend on its neighbours; here their length is fixed when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Context, Decimal, localcontext

from layercast.errors import ShapeError, ValueRangeError

_DIGITS = 50
_TWO_PI = 2 * Decimal("3.14159265358979323846264338327950288419716939937510582097494")


@dataclass(frozen=True)
class RopeFrequencies:
    """What a rotary table is made from.

    Attributes:
        head_dim: Channels rotated, even.
        base: `rope_theta`.
        inv_freq: `head_dim / 2` scaled inverse frequencies in radians a position, binary64; None
            for the plain ones, which `layercast.ops.rotary_table` computes from `base`.
        attention_scaling: Factor of cosines and sines; 1.0 for no scaling.
        position_limit: Positions from here on would need other frequencies; None for no limit.
    """

    head_dim: int
    base: float
    inv_freq: tuple[float, ...] | None = None
    attention_scaling: float = 1.0
    position_limit: int | None = None


def default(head_dim: int, base: float) -> RopeFrequencies:
    """`base ** (-2i / head_dim)`, unscaled.

    Args:
        head_dim: Channels rotated, even and positive.
        base: `rope_theta`, > 0.

    Returns:
        The description of the plain table.

    Raises:
        ShapeError: `head_dim` is odd or not positive.
        ValueRangeError: `base` is not positive.

    References:
        Su et al. 2021, arXiv:2104.09864, section 3.2.2.
    """
    plain(head_dim, base)
    return RopeFrequencies(head_dim, base)


def plain(head_dim: int, base: float) -> tuple[float, ...]:
    """`base ** (-2i / head_dim)` for i = 0 .. head_dim/2 - 1, correctly rounded to binary64.

    Args:
        head_dim: Channels rotated, even and positive.
        base: `rope_theta`, > 0.

    Returns:
        The frequencies.

    Raises:
        ShapeError: `head_dim` is odd or not positive.
        ValueRangeError: `base` is not positive.
    """
    with localcontext(Context(prec=_DIGITS)):
        return tuple(float(frequency) for frequency in _plain(head_dim, base))


def linear(head_dim: int, base: float, *, factor: float) -> RopeFrequencies:
    """Plain frequencies divided by `factor` (position interpolation).

    Args:
        head_dim: Channels rotated.
        base: `rope_theta`.
        factor: How much longer the context becomes, > 0.

    Returns:
        The frequencies.

    References:
        Chen et al. 2023, arXiv:2306.15595.
    """
    with localcontext(Context(prec=_DIGITS)):
        scale = _positive("linear", "factor", factor)
        exact = [f / scale for f in _plain(head_dim, base)]
        return RopeFrequencies(head_dim, base, tuple(float(f) for f in exact))


def llama3(
    head_dim: int,
    base: float,
    *,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_position_embeddings: int,
) -> RopeFrequencies:
    """Llama 3.1: long wavelengths divided by `factor`, short ones kept, a smooth middle.

    Args:
        head_dim: Channels rotated.
        base: `rope_theta`.
        factor: Divisor of the low frequencies.
        low_freq_factor: Wavelengths above `original / low_freq_factor` are divided.
        high_freq_factor: Wavelengths below `original / high_freq_factor` are kept.
        original_max_position_embeddings: Context length of pretraining, in tokens.

    Returns:
        The frequencies.

    References:
        `rope_type: llama3` of transformers; Llama 3.1 reference code, `apply_scaling`.
    """
    with localcontext(Context(prec=_DIGITS)):
        scale = _positive("llama3", "factor", factor)
        low = _positive("llama3", "low_freq_factor", low_freq_factor)
        high = _positive("llama3", "high_freq_factor", high_freq_factor)
        if high <= low:
            raise ValueRangeError(
                f"llama3: `high_freq_factor` must exceed `low_freq_factor` = {low_freq_factor}, "
                f"got {high_freq_factor}. Check rope_parameters in config.json."
            )
        original = Decimal(original_max_position_embeddings)
        scaled = []
        for frequency in _plain(head_dim, base):
            turns = original * frequency / _TWO_PI  # full turns within the original context
            if turns < low:
                scaled.append(frequency / scale)
            elif turns > high:
                scaled.append(frequency)
            else:
                smooth = (turns - low) / (high - low)
                scaled.append((1 - smooth) * frequency / scale + smooth * frequency)
        return RopeFrequencies(head_dim, base, tuple(float(f) for f in scaled))


def yarn(
    head_dim: int,
    base: float,
    *,
    factor: float,
    original_max_position_embeddings: int,
    attention_factor: float | None = None,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    mscale: float | None = None,
    mscale_all_dim: float | None = None,
    truncate: bool = True,
) -> RopeFrequencies:
    """YaRN: interpolated and plain frequencies mixed by a ramp over the channels.

    Args:
        head_dim: Channels rotated.
        base: `rope_theta`.
        factor: How much longer the context becomes.
        original_max_position_embeddings: Context length of pretraining, in tokens.
        attention_factor: Factor of cosines and sines; None: `0.1 ln(factor) + 1`,
            or the ratio of the two mscale forms where both are given.
        beta_fast: Turns above which a channel is kept.
        beta_slow: Turns below which a channel is interpolated.
        mscale: Multiplies the logarithm in the numerator.
        mscale_all_dim: Multiplies the logarithm in the denominator.
        truncate: Round the ends of the ramp to whole channels.

    Returns:
        The frequencies and the attention scaling.

    References:
        Peng et al. 2023, arXiv:2309.00071; `rope_type: yarn` of transformers.
    """
    with localcontext(Context(prec=_DIGITS)):
        scale = _positive("yarn", "factor", factor)
        original = Decimal(original_max_position_embeddings)
        log_base = Decimal(base).ln()

        def channel(turns: float) -> Decimal:
            return head_dim * (original / (Decimal(turns) * _TWO_PI)).ln() / (2 * log_base)

        low, high = channel(beta_fast), channel(beta_slow)
        if truncate:
            low, high = (
                low.to_integral_value("ROUND_FLOOR"),
                high.to_integral_value("ROUND_CEILING"),
            )
        low, high = max(low, Decimal(0)), min(high, Decimal(head_dim - 1))
        if low == high:
            high += Decimal("0.001")
        mixed = []
        for i, frequency in enumerate(_plain(head_dim, base)):
            ramp = min(max((i - low) / (high - low), Decimal(0)), Decimal(1))
            mixed.append(frequency / scale * ramp + frequency * (1 - ramp))

        def magnitude(weight: float) -> Decimal:
            return Decimal(1) if scale <= 1 else Decimal("0.1") * Decimal(weight) * scale.ln() + 1

        if attention_factor is None:
            if mscale and mscale_all_dim:
                attention_factor = float(magnitude(mscale) / magnitude(mscale_all_dim))
            else:
                attention_factor = float(magnitude(1))
        return RopeFrequencies(head_dim, base, tuple(float(f) for f in mixed), attention_factor)


def dynamic(
    head_dim: int,
    base: float,
    *,
    factor: float,
    max_position_embeddings: int,
    context_length: int | None = None,
) -> RopeFrequencies:
    """Dynamic NTK scaling with its length fixed: the base grows with that length.

    transformers takes the longest position of the batch for the length, so that a
    sequence's frequencies depend on its neighbours and on how far it has come.

    Args:
        head_dim: Channels rotated, at least 4.
        base: `rope_theta`.
        factor: Of the base's growth.
        max_position_embeddings: Up to this length, in tokens, nothing is scaled.
        context_length: Longest sequence that will be run, in tokens; None for
            `max_position_embeddings`.

    Returns:
        The frequencies, good for positions below that length.

    References:
        `rope_type: dynamic` of transformers.
    """
    length = max(context_length or 0, max_position_embeddings)
    if length == max_position_embeddings:
        return replace(default(head_dim, base), position_limit=length)
    with localcontext(Context(prec=_DIGITS)):
        scale = _positive("dynamic", "factor", factor)
        growth = scale * length / max_position_embeddings - (scale - 1)
        theta = _positive("dynamic", "base", base) * growth ** (Decimal(head_dim) / (head_dim - 2))
        exact = [theta ** (Decimal(-2 * i) / head_dim) for i in range(head_dim // 2)]
        frequencies = tuple(float(f) for f in exact)
        return RopeFrequencies(head_dim, base, frequencies, position_limit=length)


def longrope(
    head_dim: int,
    base: float,
    *,
    short_factor: Sequence[float],
    long_factor: Sequence[float],
    original_max_position_embeddings: int,
    factor: float,
    attention_factor: float | None = None,
    context_length: int | None = None,
) -> RopeFrequencies:
    """LongRoPE with its length fixed: each frequency divided by a factor of its own.

    transformers takes the short factors while the longest position of the batch is
    within the original context, and the long ones from then on.

    Args:
        head_dim: Channels rotated.
        base: `rope_theta`.
        short_factor: `head_dim / 2` divisors within the original context.
        long_factor: `head_dim / 2` divisors for longer contexts.
        original_max_position_embeddings: Context length of pretraining, in tokens.
        factor: How much longer the context becomes; gives the attention factor.
        attention_factor: Factor of cosines and sines; None:
            `sqrt(1 + ln(factor) / ln(original))`.
        context_length: Longest sequence that will be run, in tokens: the long factors serve
            every sequence if it exceeds the original context. None for the original context.

    Returns:
        The frequencies, good for positions below that length.

    Raises:
        ShapeError: Factors of another number than `head_dim / 2`.

    References:
        Ding et al. 2024, arXiv:2402.13753; `rope_type: longrope` of transformers.
    """
    length = max(context_length or 0, original_max_position_embeddings)
    divisors = long_factor if length > original_max_position_embeddings else short_factor
    with localcontext(Context(prec=_DIGITS)):
        plain_frequencies = _plain(head_dim, base)
        if len(divisors) != len(plain_frequencies):
            raise ShapeError(
                f"longrope: `short_factor` and `long_factor` must have {head_dim // 2} entries, "
                f"got {len(divisors)}. Check rope_parameters in config.json."
            )
        exact = [
            f / _positive("longrope", "factor", d)
            for f, d in zip(plain_frequencies, divisors, strict=True)
        ]
        if attention_factor is None:
            grown = _positive("longrope", "factor", factor)
            ratio = grown.ln() / Decimal(original_max_position_embeddings).ln()
            attention_factor = 1.0 if grown <= 1 else float((1 + ratio).sqrt())
        return RopeFrequencies(
            head_dim, base, tuple(float(f) for f in exact), attention_factor, length
        )


def _plain(head_dim: int, base: float) -> list[Decimal]:
    if head_dim <= 0 or head_dim % 2:
        raise ShapeError(
            f"rope_frequencies: `head_dim` must be even and positive, got {head_dim}. "
            "Check head_dim in config.json."
        )
    theta = _positive("rope_frequencies", "base", base)
    return [theta ** (Decimal(-2 * i) / head_dim) for i in range(head_dim // 2)]


def _positive(function: str, argument: str, value: float) -> Decimal:
    if not value > 0:
        raise ValueRangeError(
            f"{function}: `{argument}` must be positive, got {value}. "
            "Check rope_parameters in config.json."
        )
    return Decimal(value)
