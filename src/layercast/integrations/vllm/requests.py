"""What a request may tell the plugin, checked where it comes in.

A worker that refused a request would end, and with it the answers of all others.
"""

from __future__ import annotations

import functools
from typing import Any

from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams

from layercast.errors import LayercastError, UnsupportedError, ValueRangeError
from layercast.integrations.transformers.config import QUANT_METHOD
from layercast.integrations.vllm.draws import sample_index

DIGESTS = "layercast_digests"
"""In `SamplingParams.extra_args`: a name under which the digest of every row of log-probabilities
is kept, to be fetched by `collective_rpc("layercast_digests")`."""

_MARK = "_layercast"


def prepare_requests() -> None:
    """Follow vLLM's own check of requests, once in a process; other models' are left alone."""
    verify = SamplingParams.verify
    if not hasattr(verify, _MARK):
        checking = _checking(verify)
        setattr(checking, _MARK, True)
        SamplingParams.verify = checking


def check_request(params: Any) -> None:
    """Refuse what no worker could follow.

    Args:
        params: `SamplingParams` of vLLM.

    Raises:
        ValueRangeError: The sample's index is no integer >= 0, or the name of the digests no text.
        UnsupportedError: Digests of several samples under one name.
    """
    sample_index(params)
    name = (params.extra_args or {}).get(DIGESTS)
    if name is None:
        return
    if not isinstance(name, str):
        raise ValueRangeError(
            f"layercast: `{DIGESTS}` must be a text, got {name!r}. Give a name for the digests, or "
            "leave it out."
        )
    if params.n != 1:
        raise UnsupportedError(
            f"layercast: `n` must be 1 with `{DIGESTS}`, got {params.n}: a name is of one answer. "
            "Give each sample a request, with a name and a seed of its own."
        )


def _checking(verify: Any) -> Any:
    @functools.wraps(verify)
    def check(self: Any, model_config: Any, *args: Any, **kwargs: Any) -> None:
        verify(self, model_config, *args, **kwargs)
        if getattr(model_config, "quantization", None) == QUANT_METHOD:
            try:
                check_request(self)
            except LayercastError as error:
                # vLLM's own, which its server answers with status 400.
                raise VLLMValidationError(str(error)) from error

    return check
