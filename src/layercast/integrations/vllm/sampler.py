"""From logits to tokens and log-probabilities."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import torch
from torch import Tensor
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.sample.sampler import Sampler

from layercast import ops
from layercast.integrations.vllm.draws import Draw, draw_of, key_of
from layercast.integrations.vllm.requests import DIGESTS

_GREEDY_BELOW = 1e-5


class LayerCastSampler(Sampler):  # type: ignore[misc]
    """vLLM's sampler with log-probabilities, argmax and draws by our operations.

    Its processors (token lists, biases, penalties, grammars) add, multiply and compare element by
    element in one request's row, and stay.
    """

    def __init__(self, runner: Any) -> None:
        """Make the sampler.

        Args:
            runner: Whose requests these are.
        """
        super().__init__(logprobs_mode=runner.model_config.logprobs_mode)
        self._runner = runner
        self._unseeded = itertools.count(int(runner.model_config.seed or 0) << 32)
        self._digests: dict[str, tuple[str, list[int]]] = {}  # with the request's own name

    def forward(self, logits: Tensor, sampling_metadata: Any, *args: Any, **kwargs: Any) -> Any:
        """See vLLM; keeps digests for requests that ask for them."""
        batch = self._runner.input_batch
        if sampling_metadata is batch.sampling_metadata:
            self._keep_digests(logits)
            # Not drawn from; vLLM would set them back for parts of a prompt, which it cannot on a
            # CPU.
            batch.generators.clear()
        return super().forward(logits, sampling_metadata, *args, **kwargs)

    @staticmethod
    def compute_logprobs(logits: Tensor) -> Tensor:
        """See `layercast.ops.log_softmax`.

        Args:
            logits: Float32, shape (B, V).

        Returns:
            Float32, shape (B, V).
        """
        return ops.log_softmax(logits)

    @staticmethod
    def gather_logprobs(logprobs: Tensor, num_logprobs: int, token_ids: Tensor) -> Any:
        """The likeliest tokens, ties by the lower index, after the one chosen.

        Args:
            logprobs: Float32, shape (B, V).
            num_logprobs: How many, k.
            token_ids: int64, shape (B,).

        Returns:
            Indices and log-probabilities, shape (B, k + 1), and the rank of each chosen token.
        """
        chosen = token_ids.unsqueeze(-1)
        values = logprobs.gather(-1, chosen)
        ranks = (logprobs >= values).sum(-1)
        indices = chosen
        if num_logprobs:
            likeliest, order = ops.topk(logprobs, num_logprobs)
            indices = torch.cat((chosen, order), dim=1)
            values = torch.cat((values, likeliest), dim=1)
        return LogprobsTensors(indices.to(torch.int32), values, ranks)

    @staticmethod
    def greedy_sample(logits: Tensor) -> Tensor:
        """See `layercast.ops.argmax`: ties go to the lowest index."""
        return ops.argmax(logits)

    def sample(
        self, logits: Tensor, sampling_metadata: Any, logprobs_mode_override: Any = None
    ) -> tuple[Tensor, Tensor | None]:
        """One token a request.

        Args:
            logits: Float32, shape (B, V), after all processors.
            sampling_metadata: Of the batch.
            logprobs_mode_override: Unused: processed log-probabilities were refused.

        Returns:
            int64, shape (B,), and None.
        """
        tokens = self.greedy_sample(logits)
        batch = self._runner.input_batch
        if sampling_metadata.all_greedy or sampling_metadata is not batch.sampling_metadata:
            return tokens, None
        for draw, rows in self._rows_by_draw().items():
            states = [self._runner.requests[batch.req_ids[row]] for row in rows]
            tokens[rows] = ops.sample(
                logits[rows],
                temperature=draw.temperature,
                seed=draw.seed,
                sequence_keys=_on(logits, [_key(state) for state in states]),
                positions=_on(logits, [state.num_tokens for state in states]),
                top_k=draw.top_k,
                top_p=draw.top_p,
                min_p=draw.min_p,
            )
        return tokens, None

    def take_digests(self) -> dict[str, list[int]]:
        """BLAKE2b-64 of each row of log-probabilities, by the request's name for them.

        Returns:
            One number a token, in the order of the tokens; they are forgotten then. A name that
            was given again is the later request's.
        """
        digests, self._digests = self._digests, {}
        return {label: kept for label, (_, kept) in digests.items()}

    def _rows_by_draw(self) -> dict[Draw, list[int]]:
        groups: dict[Draw, list[int]] = {}
        for row, name in enumerate(self._runner.input_batch.req_ids):
            state = self._runner.requests[name]
            if state.sampling_params.temperature < _GREEDY_BELOW:
                continue
            draw = getattr(state, "layercast_draw", None)
            if draw is None:
                # Ranks see requests in one order, so that they count alike.
                unseeded = 0 if state.sampling_params.seed is not None else next(self._unseeded)
                draw = state.layercast_draw = draw_of(state.sampling_params, unseeded)
            groups.setdefault(draw, []).append(row)
        return groups

    def _keep_digests(self, logits: Tensor) -> None:
        batch = self._runner.input_batch
        for row, name in enumerate(batch.req_ids):
            state = self._runner.requests[name]
            params = state.sampling_params
            label = None if params is None else (params.extra_args or {}).get(DIGESTS)
            if label is None:
                continue
            # A part of the prompt before its last one gives no token, nor does a token that was
            # computed again after the request had been put back to wait.
            if _is_part(self._runner, row):
                continue
            place = state.num_tokens - state.num_prompt_tokens
            owner, kept = self._digests.get(label, (None, []))
            if owner != name and place == 0:
                owner, kept = self._digests[label] = (name, [])
            if owner == name and len(kept) == place:
                data = ops.log_softmax(logits[row : row + 1]).cpu().numpy().tobytes()
                kept.append(int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little"))


def _is_part(runner: Any, row: int) -> bool:
    return bool(runner.discard_request_mask.np[row])


def _key(state: Any) -> int:
    known = getattr(state, "layercast_key", None)
    if known is None:
        known = state.layercast_key = key_of(state)
    return int(known)


def _on(logits: Tensor, values: list[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device=logits.device)
