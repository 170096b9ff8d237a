"""Runs a model through every path that a user's calls can take."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from layercast.auditing.experts import every_expert_chosen, expert_modules
from layercast.auditing.recorder import Recorder
from layercast.auditing.report import Exercise
from layercast.auditing.windows import (
    LONGEST_RUN,
    SHORT_WINDOW,
    longest_window,
    rope_switch,
    shortened_windows,
    text_config,
)
from layercast.errors import LayercastError, UnsupportedError
from layercast.modules.cache_name import cache_name, cache_of

_SHORTEST_RUN = 24
_PAST = 8  # tokens past a window or a switch
_CHUNK = 5
_GENERATED = 6
_MORE_TRIES = 4
_FAILURES = (RuntimeError, ValueError, TypeError, AttributeError, LookupError)


class Exercises:
    """What the audit does with a model, way by way.

    Attributes:
        done: The ways so far.
        differing: Sentences on logits that should have been the same bits and were not.
        on_logits: Called with what the model returns in each run.
    """

    def __init__(self, model: Any, recorder: Recorder, generation_config: Any) -> None:
        self.done: list[Exercise] = []
        self.differing: list[str] = []
        self.on_logits: Callable[[list[Tensor]], None] = lambda logits: None
        self._model = model
        self._recorder = recorder
        self._generation_config = generation_config
        self._generator = torch.Generator().manual_seed(0)
        self._vocabulary = int(text_config(model).vocab_size)
        self._device = next(model.parameters()).device
        window, switch = longest_window(model), rope_switch(model)
        self._shortens = window > LONGEST_RUN
        self._window = SHORT_WINDOW if self._shortens else window
        self._switch = switch
        self._length = max(_SHORTEST_RUN, self._window + _PAST)
        if switch:
            self._length = min(self._length, switch)

    def run(self) -> None:
        """Run all of them; the model is left as it was."""
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=[]))
            if self._shortens:
                stack.enter_context(shortened_windows(self._model, SHORT_WINDOW))
            tokens = self._tokens(1, self._length)
            whole = self._prefill(tokens)
            self._decode(tokens, whole)
            if self._switch:
                self._past_the_switch()
            self._padded_batch(tokens, whole)
            if expert_modules(self._model):
                self._experts()
            self._decoding()
            self._rest()

    def _prefill(self, tokens: Tensor) -> Tensor | None:
        whole = None
        with self._way("prefill", f"{self._length} tokens at once"):
            whole = self._logits(self._forward(tokens))
        return whole

    def _decode(self, tokens: Tensor, whole: Tensor | None) -> None:
        first = max(self._length - _CHUNK - _PAST - 2, 1)
        detail = f"{first} tokens, a chunk of {_CHUNK}, then token by token to {self._length}"
        if self._window:
            shortened = ", shortened for the audit" if self._shortens else ""
            detail += f", past the window of {self._window}{shortened}"
        with self._way("decode", detail):
            parts = self._in_pieces(tokens, first)
            self._compare(whole, parts, "decoded token by token and at once")

    def _past_the_switch(self) -> None:
        name = "rope switch"
        if self._switch > LONGEST_RUN:
            text = f"not passed: it lies at {self._switch} tokens"
            self.done.append(Exercise(name, text))
            return
        tokens = self._tokens(1, self._switch + _PAST)
        with self._way(name, f"{tokens.shape[1]} tokens, past the switch at {self._switch}"):
            whole = self._logits(self._forward(tokens))
            parts = self._in_pieces(tokens, self._switch - _CHUNK - 1)
            self._compare(whole, parts, "decoded past the rope switch and at once")

    def _in_pieces(self, tokens: Tensor, first: int) -> Tensor:
        """Logits of the first tokens, then of a chunk, then token by token."""
        length = tokens.shape[1]
        output = self._forward(tokens[:, :first], use_cache=True)
        parts = [self._logits(output)]
        chunk = min(first + _CHUNK, length)
        ends = [chunk, *range(chunk + 1, length + 1)]
        for start, end in pairwise((first, *ends)):
            output = self._forward(
                tokens[:, start:end],
                use_cache=True,
                position_ids=torch.arange(start, end)[None],
                **{cache_name(self._model.forward): cache_of(output)},
            )
            parts.append(self._logits(output))
        return torch.cat(parts, dim=1)

    def _padded_batch(self, tokens: Tensor, whole: Tensor | None) -> None:
        lengths = (self._length // 2, self._length, 3)
        with self._way("padded batch", f"sequences of {lengths} tokens, padded on the left"):
            ids, mask = self._batch(tokens, lengths)
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            logits = self._logits(self._forward(ids, attention_mask=mask, position_ids=positions))
            half = logits[:1, -lengths[0] :]
            alone = None if whole is None else whole[:, : lengths[0]]
            self._compare(alone, half, "in a padded batch and alone")

    def _experts(self) -> None:
        experts = max(int(module.num_experts) for module in expert_modules(self._model))
        tokens = self._tokens(-(-experts // self._length), self._length)
        detail = f"all {experts}, tokens dealt out to them in turn"
        with self._way("experts", detail), every_expert_chosen(self._model):
            self._forward(tokens)

    def _decoding(self) -> None:
        if not hasattr(self._model, "generate"):
            return
        from transformers import GenerationConfig

        chosen = self._generation_config or GenerationConfig(do_sample=False, num_beams=1)
        mode = str(getattr(chosen.get_generation_mode(), "value", "greedy_search"))
        alone = mode == "assisted_generation"  # transformers knows it for one sequence only
        lengths = (max(self._length - _GENERATED, 4), 3)[: 1 if alone else 2]
        batch = "one sequence" if alone else "a padded batch of 2"
        with self._way("decoding", f"{mode.replace('_', ' ')}, {_GENERATED} tokens, {batch}"):
            ids, mask = self._batch(self._tokens(1, lengths[0]), lengths)
            settings = GenerationConfig(**chosen.to_dict())
            settings.update(
                max_new_tokens=_GENERATED, max_length=None, eos_token_id=None, pad_token_id=0
            )
            with self._inputs(ids, mask), _generation_config(self._model, GenerationConfig()):
                self._model.generate(ids, attention_mask=mask, generation_config=settings)

    def _rest(self) -> None:
        """Run more tokens as long as some parameter has not been read: an expert, most often."""
        tried = 0
        while self._recorder.unread_parameters() and tried < _MORE_TRIES:
            tried += 1
            with suppress(LayercastError, *_FAILURES):
                self._forward(self._tokens(8, self._length))

    @contextmanager
    def _way(self, name: str, detail: str) -> Iterator[None]:
        try:
            yield
        except LayercastError as error:
            self.done.append(Exercise(name, detail, refused=str(error)))
        except _FAILURES as error:
            message = str(error).strip().partition("\n")[0]
            reason = f"{type(error).__name__}: {message}"
            if not self.done:
                raise UnsupportedError(
                    f"audit: `model` must run on a batch of token ids, got {reason}. Only "
                    "decoder-only models of transformers can be audited; check that it runs."
                ) from error
            self.done.append(Exercise(name, detail, failed=reason))
        else:
            self.done.append(Exercise(name, detail))

    def _forward(self, ids: Tensor, **options: Any) -> Any:
        accepted = _accepted(self._model.forward)
        options.setdefault("use_cache", False)
        options.setdefault("position_ids", torch.arange(ids.shape[1])[None].expand(ids.shape))
        options = {
            key: value.to(self._device) if isinstance(value, Tensor) else value
            for key, value in options.items()
            if accepted(key)
        }
        tensors = [value for value in options.values() if isinstance(value, Tensor)]
        with self._inputs(ids, *tensors):
            return self._model(input_ids=ids, **options)

    def _inputs(self, *tensors: Tensor) -> Any:
        return self._recorder.recording(tensors)

    def _logits(self, output: Any) -> Tensor:
        logits: Tensor | None = getattr(output, "logits", None)
        states: Tensor = output.last_hidden_state if logits is None else logits
        self.on_logits([states])
        return states

    def _tokens(self, rows: int, length: int) -> Tensor:
        ids = torch.randint(self._vocabulary, (rows, length), generator=self._generator)
        return ids.to(self._device)

    def _batch(self, tokens: Tensor, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Sequences padded on the left; the first begins like `tokens`, the others are new."""
        width = max(lengths)
        ids = torch.zeros(len(lengths), width, dtype=torch.int64, device=self._device)
        mask = torch.zeros_like(ids)
        for row, length in enumerate(lengths):
            sequence = tokens[:, :length] if row == 0 else self._tokens(1, length)
            ids[row, width - length :] = sequence[0]
            mask[row, width - length :] = 1
        return ids, mask

    def _compare(self, one: Tensor | None, other: Tensor, how: str) -> None:
        if one is not None and not _same_bits(one, other):
            self.differing.append(f"the logits of a sequence differ {how}")


def _same_bits(one: Tensor, other: Tensor) -> bool:
    one, other = one.contiguous(), other.contiguous()
    return one.dtype is other.dtype and torch.equal(
        one.view(torch.uint8), other.view(torch.uint8)
    )  # fmt: skip


def _accepted(forward: Callable[..., Any]) -> Callable[[str], bool]:
    parameters = inspect.signature(forward).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return lambda name: True
    names = {parameter.name for parameter in parameters}
    return names.__contains__


@contextmanager
def _generation_config(model: Any, config: Any) -> Iterator[None]:
    """Keep what the checkpoint declares out of decoding."""
    own = model.generation_config
    model.generation_config = config
    try:
        yield
    finally:
        model.generation_config = own
