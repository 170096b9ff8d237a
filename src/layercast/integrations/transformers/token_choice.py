"""The next token of each request that continuous batching serves, from its own tokens alone."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from layercast import ops
from layercast.integrations.transformers.own_tokens import OwnTokens
from layercast.integrations.transformers.processors import exact_processors
from layercast.integrations.transformers.sampling import Sampling, sampling_of

_CHILD = re.compile(r"__child#(\d+)$")


@dataclass(frozen=True)
class _Request:
    """What does not change while a request is served."""

    processors: LogitsProcessorList
    sampling: Sampling | None
    key: int


class TokenChooser:
    """Chooses the next token of each sequence from its own tokens and logits."""

    def __init__(self, model: Any, generation_config: Any, batching_config: Any) -> None:
        """Prepare.

        Args:
            model: Makes logits processors of a generation config.
            generation_config: With all its defaults.
            batching_config: Its seed is used where the generation config has none.
        """
        self._model = model
        self._config = copy.copy(generation_config)
        if getattr(self._config, "seed", None) is None:
            self._config.seed = getattr(batching_config, "seed", None)
        self._samples = generation_config.num_return_sequences or 1
        self._requests: dict[str, _Request] = {}
        self._request_of([0], 0, 1)  # refuses now what it would refuse later

    def choose(self, states: Sequence[Any], logits: Tensor) -> Tensor:
        """One token a sequence.

        Args:
            states: Of the sequences, as transformers keeps them.
            logits: Float32, shape (B, V).

        Returns:
            int64, shape (B,).
        """
        served = {}
        for state in states:
            known = self._requests.get(state.request_id)
            served[state.request_id] = known if known is not None else self._begin(state)
        self._requests = served  # others have ended, or been put back to wait
        requests = [served[state.request_id] for state in states]
        scores = logits
        if requests[0].processors:
            rows = []
            for each, state, row in zip(requests, states, logits[:, None], strict=True):
                tokens = torch.tensor(
                    [[*state.initial_tokens, *state.generated_tokens]], device=row.device
                )
                rows.append(each.processors(tokens, row))
            scores = torch.cat(rows)
        sampling = requests[0].sampling
        if sampling is None:
            return ops.argmax(scores)
        keys = torch.tensor([each.key for each in requests], dtype=torch.int64)
        lengths = [len(state.initial_tokens) + len(state.generated_tokens) for state in states]
        return sampling.draw(scores, keys, torch.tensor(lengths))

    def _begin(self, state: Any) -> _Request:
        # A request put back to wait comes again with its answer so far among its prompt.
        length = state._true_initial_tokens or len(state.initial_tokens)
        child = _CHILD.search(state.request_id) if self._samples > 1 else None
        index = 0 if child is None else int(child[1]) + 1
        limit = state.max_new_tokens or 0
        return self._request_of(
            state.initial_tokens[:length], index, len(state.initial_tokens) + limit - length
        )

    def _request_of(self, prompt: list[int], index: int, max_new_tokens: int) -> _Request:
        config = copy.copy(self._config)
        config.max_length = len(prompt) + max_new_tokens
        ids = torch.tensor([prompt], device=self._model.device)
        processors = self._model._get_logits_processor(
            generation_config=config,
            input_ids_seq_length=len(prompt),
            encoder_input_ids=ids,
            prefix_allowed_tokens_fn=None,
            logits_processor=LogitsProcessorList(),
            device=ids.device,
            model_kwargs={},
        )
        sampling = None
        if config.do_sample:
            processors, sampling = sampling_of(processors, config)
        processors = exact_processors(processors, OwnTokens(ids, None), counts_new_tokens=False)
        return _Request(processors, sampling, ops.sequence_key(prompt, index))
