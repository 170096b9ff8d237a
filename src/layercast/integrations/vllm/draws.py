"""How the tokens of a request are drawn: by Philox, from its own prompt, seed and positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from layercast import ops
from layercast.errors import UnsupportedError, ValueRangeError

SAMPLE_INDEX = "layercast_sample_index"
"""In `SamplingParams.extra_args`, or `vllm_xargs` of a request over HTTP: which of several samples
of the same prompt under the same seed this is, from 0."""

_SEEDS = 2**63
_HOTTEST = 2.0**20


@dataclass(frozen=True)
class Draw:
    """What does not change while a request is served; equal ones but for `key` draw together.

    Attributes:
        temperature: Divides the logits.
        seed: Within 0 .. 2**63 - 1.
        top_k: Tokens kept, or None for all.
        top_p: Share of the weight kept, or None for all.
        min_p: Least weight kept, as a share of the largest one, or None for all.
    """

    temperature: float
    seed: int
    top_k: int | None
    top_p: float | None
    min_p: float | None


def draw_of(params: Any, unseeded: int) -> Draw:
    """How a request draws.

    Args:
        params: `SamplingParams` of vLLM.
        unseeded: The seed where the request brings none.

    Returns:
        The settings; a temperature beyond 2**20 is 2**20, where all tokens are as likely.
    """
    seed = unseeded if params.seed is None else params.seed
    return Draw(
        temperature=min(float(params.temperature), _HOTTEST),
        seed=seed % _SEEDS,
        top_k=params.top_k if params.top_k > 0 else None,
        top_p=params.top_p if params.top_p < 1.0 else None,
        min_p=params.min_p if params.min_p > 0.0 else None,
    )


def key_of(state: Any) -> int:
    """Whose draws: a key of the prompt and of which sample of it this is.

    Args:
        state: Of the request, as vLLM's runner keeps it.

    Returns:
        See `layercast.ops.sequence_key`.

    Raises:
        UnsupportedError: The prompt is given as embeddings.
    """
    if state.prompt_token_ids is None:
        raise UnsupportedError(
            "layercast: a request that samples must give its prompt as tokens, got embeddings. "
            "Decode it greedily."
        )
    return ops.sequence_key(state.prompt_token_ids, sample_index(state.sampling_params))


def sample_index(params: Any) -> int:
    """Which of several samples of one prompt and seed a request asks for.

    Args:
        params: `SamplingParams` of vLLM.

    Raises:
        ValueRangeError: It is no integer >= 0.
    """
    index = (params.extra_args or {}).get(SAMPLE_INDEX, 0)
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise ValueRangeError(
            f"layercast: `{SAMPLE_INDEX}` must be an integer from 0 on, got {index!r}. Leave it "
            "out for the first sample."
        )
    return index
