"""What the study asks of an engine.

An engine is a module with the functions of `EngineModule`, named by its dotted path,
so that the process that only starts workers need not import torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from numpy import float32, int32, uint64
from numpy.typing import NDArray

#: What an engine reports of its own state for the manifest: plain JSON values.
Facts = dict[str, Any]


@dataclass(frozen=True)
class Prompt:
    """A problem as the model sees it: the text after the chat template, and its token ids."""

    text: str
    token_ids: tuple[int, ...]


class Generation(Protocol):
    """One answer, as `layercast.integrations.transformers.generate` returns it.

    With T generated tokens, the end-of-sequence token included when produced.
    """

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The T generated tokens."""

    @property
    def logprobs(self) -> NDArray[float32]:
        """Log-probability of each generated token, shape (T,)."""

    @property
    def top_ids(self) -> NDArray[int32]:
        """Best tokens at each position, best first, ties by the lower index, shape (T, top_k)."""

    @property
    def top_logprobs(self) -> NDArray[float32]:
        """Log-probabilities of `top_ids`, shape (T, top_k)."""

    @property
    def digests(self) -> NDArray[uint64]:
        """BLAKE2b-64 of the whole log-probability row at each position, shape (T,)."""

    @property
    def finish_reason(self) -> str:
        """``stop`` (end of sequence) or ``length`` (token limit)."""


class Engine(Protocol):
    """A loaded model at one precision, in a process of its own."""

    def facts(self) -> Facts:
        """Return what the manifest must know: versions, threads, instruction set, guarantee."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        top_k: int,
        on_step: Callable[[int], None],
    ) -> Sequence[Generation]:
        """Answer one batch greedily.

        Args:
            prompts: Token ids of each prompt; the batch is exactly these, in this order.
            max_new_tokens: Limit of generated tokens a prompt.
            top_k: Candidates kept at every position.
            on_step: Called after each decoding step with the tokens generated so far.
        """

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of generated tokens, without special tokens."""


class EngineModule(Protocol):
    """The functions an engine's module has."""

    def encode(
        self, model_path: Path, conversations: Sequence[list[dict[str, str]]]
    ) -> list[Prompt]:
        """Apply the model's chat template; needs the tokenizer only."""

    def pieces(self, model_path: Path) -> list[bytes]:
        """Return the bytes each token stands for, by token id; needs the tokenizer only."""

    def open_engine(self, model_path: Path, *, precision: str, threads: int) -> Engine:
        """Load the model at a precision into this process."""


def load_engine(dotted_path: str) -> EngineModule:
    """Import an engine's module."""
    return cast(EngineModule, importlib.import_module(dotted_path))
