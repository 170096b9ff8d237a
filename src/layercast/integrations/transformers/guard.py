"""What a loaded model refuses, so that the guarantee cannot be lost in silence."""

from __future__ import annotations

import functools
import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from layercast.errors import GuaranteeError, ShapeError, UnsupportedError, ValueRangeError
from layercast.integrations.transformers.attention import ATTENTION
from layercast.integrations.transformers.positions import count_positions

_SMALLEST_NORMAL = 2.0**-1022
_GRAIN = 32768  # elements below which torch runs an elementwise operation on the calling thread
_ARGUMENTS = ("input_ids", "attention_mask", "position_ids", "past_key_values", "inputs_embeds")


class LayerCastModel:
    """Mixed into the class of a loaded model; see `guard_model`."""

    @property
    def dtype(self) -> torch.dtype:
        """Of activations and caches: float32, whatever the weights are stored in."""
        return torch.float32

    def half(self, *_: Any) -> Any:
        """Refused: see `StoredWeights`."""
        return nn.Module.half(cast("nn.Module", self))

    def float(self, *_: Any) -> Any:
        """Refused where a weight is stored in 16 bits: see `StoredWeights`."""
        return nn.Module.float(cast("nn.Module", self))

    def set_attn_implementation(self, attn_implementation: Any, **kwargs: Any) -> None:
        """Refused for any other attention than ours."""
        if attn_implementation != ATTENTION:
            raise GuaranteeError(
                f"set_attn_implementation: `attn_implementation` must stay {ATTENTION!r} on a "
                f"layercast model, got {attn_implementation!r}. Load the model again without "
                "layercast to use it."
            )

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # The class is made at run time, so pickle cannot find it by name.
        reduced = cast("tuple[Any, ...]", super().__reduce_ex__(protocol))
        return (_rebuild, (type(self).__mro__[2],), *reduced[2:])


def guard_model(model: PreTrainedModel) -> None:
    """Attach the refusals to a loaded model, in place.

    Its class becomes a subclass of the same name, so that `dtype` can report
    float32; its base model checks every forward pass.

    Args:
        model: After loading.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.__class__ = _guarded_class(cast("Any", type(model)))
    model.base_model.register_forward_pre_hook(check_forward, with_kwargs=True)


@functools.cache
def _guarded_class(cls: Any) -> Any:
    namespace = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
    }
    if hasattr(cls, "generate"):

        @functools.wraps(cls.generate)
        def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
            _check_decoding(self, *args, **kwargs)
            return cls.generate(self, *args, **kwargs)

        namespace["generate"] = generate
    return type(cls.__name__, (LayerCastModel, cls), namespace)


def _rebuild(cls: type[PreTrainedModel]) -> PreTrainedModel:
    guarded = _guarded_class(cast("Any", cls))
    return cast("PreTrainedModel", guarded.__new__(guarded))


def check_forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Forward pre-hook of the base model.

    Args:
        module: The base model.
        args: Positional arguments of its forward.
        kwargs: Keyword arguments of its forward.

    Raises:
        GuaranteeError: Training mode, flush-to-zero, or another attention.
        ValueRangeError: Position ids that padding would shift.
        ShapeError: A padding mask shorter than the sequence.
        UnsupportedError: A mask of another kind than padding.
    """
    if module.training:
        raise GuaranteeError(
            "layercast: the model must be in evaluation mode, got training mode. Call model.eval()."
        )
    config: Any = module.config
    if config._attn_implementation != ATTENTION:
        raise GuaranteeError(
            f"layercast: the attention must be {ATTENTION!r}, got {config._attn_implementation!r}. "
            "Load the model again."
        )
    if args:
        kwargs = {
            **dict(zip(_forward_parameters(cast("Any", type(module))), args, strict=False)),
            **kwargs,
        }
    ids, mask, positions, cache, embeds = (kwargs.get(name) for name in _ARGUMENTS)
    tokens = ids if ids is not None else embeds
    if tokens is None:
        return  # the model's own error is clear
    widest = max(config.hidden_size, getattr(config, "intermediate_size", None) or 0)
    check_subnormals(tokens.shape[0] * tokens.shape[1] * widest)
    seen = int(cache.get_seq_length()) if cache is not None else 0
    _check_positions(positions, mask, seen, tokens.shape[0], tokens.shape[1])


@functools.cache
def _forward_parameters(cls: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(cls.forward).parameters)[1:]


def check_subnormals(elements: int) -> None:
    """Refuse to compute where this thread, or torch's pool, flushes subnormal numbers to zero.

    A pool started under flush-to-zero keeps it after the caller has left that
    mode, so operations large enough to use the pool are preceded by a look at it.

    Args:
        elements: Of the largest elementwise operation to come.

    Raises:
        GuaranteeError: A subnormal number came out as zero.
    """
    flushed = not _SMALLEST_NORMAL * 0.5 > 0.0  # binary64, but the control word is the same
    if not flushed and elements > _GRAIN and (threads := torch.get_num_threads()) > 1:
        chunks = min(threads, -(-elements // _GRAIN))
        flushed = not bool((torch.full((chunks * _GRAIN,), 2.0**-127) * 0.5).all())
    if flushed:
        raise GuaranteeError(
            "layercast: subnormal numbers must be kept, got a processor that flushes them to "
            "zero. Call torch.set_flush_denormal(False) before the first operation on tensors; "
            "another library may have set it."
        )


def _check_positions(
    positions: Tensor | None, mask: Any, seen: int, batch: int, length: int
) -> None:
    """Position ids must count each row's own tokens from 0, as attention does."""
    if isinstance(mask, dict):  # made by `slot_position_mask` beforehand, for a static cache
        mask = next((m for m in mask.values() if m is not None), None)
    if mask is None:
        if positions is None:
            return
        counted = torch.arange(seen, seen + length)
        real = None
    elif mask.ndim == 2:
        if mask.shape[1] < seen + length:
            raise ShapeError(
                f"layercast: `attention_mask` must cover the {seen} cached tokens and the "
                f"{length} given, got {mask.shape[1]} columns. Pass the mask of the whole "
                "sequence, 1 for real tokens and 0 for padding."
            )
        mask = mask[:, : seen + length].bool()
        counted = (
            mask.sum(1, keepdim=True) - 1 if length == 1 else count_positions(mask)[:, -length:]
        )
        real = mask[:, -length:]
    elif mask.dtype is torch.int64 and mask.ndim == 4 and mask.shape[1:3] == (1, 1):
        counted = mask[:, 0, 0, :length]
        real = counted >= 0
    else:
        raise UnsupportedError(
            "layercast: `attention_mask` must be a padding mask of shape (batch, length), got a "
            f"{mask.dtype} mask of shape {tuple(mask.shape)}. Only causal, sliding-window and "
            "padding masks are covered."
        )
    given = torch.arange(seen, seen + length) if positions is None else positions
    wrong = given != counted
    if real is not None:
        wrong = wrong & real
    if bool(wrong.any()):
        row = int(wrong.expand(batch, length).any(1).nonzero()[0])
        raise ValueRangeError(
            "layercast: `position_ids` must count each row's real tokens from 0, got "
            f"{'none' if positions is None else 'others'} for row {row}, whose padding or packing "
            "shifts them. Pass position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0), the "
            "columns of the tokens given, with the attention_mask; give packed sequences a row "
            "each."
        )


def _check_decoding(
    model: Any,
    inputs: Tensor | None = None,
    generation_config: Any = None,
    assistant_model: Any = None,
    attention_mask: Tensor | None = None,
    **kwargs: Any,
) -> None:
    from transformers import GenerationConfig

    settings = GenerationConfig(**(generation_config or model.generation_config).to_dict())
    if generation_config is not None:
        settings.update(**model.generation_config.to_dict(), defaults_only=True)
    settings.update(**kwargs)
    mode = str(getattr(settings.get_generation_mode(assistant_model), "value", ""))
    if mode != "greedy_search":
        raise UnsupportedError(
            f"generate: decoding must be greedy on a layercast model, got {mode}. Pass "
            "do_sample=False and num_beams=1 (a checkpoint's generation_config.json may set "
            "others); stock sampling and beam scores depend on the batch."
        )
    if (
        attention_mask is not None
        and attention_mask.ndim == 2
        and not bool(attention_mask[:, -1].all())
    ):
        raise ValueRangeError(
            "generate: `attention_mask` must end in real tokens, got padding on the right, so "
            "that a row's next token would be predicted from padding. Pad on the left: "
            "tokenizer.padding_side = 'left'."
        )
