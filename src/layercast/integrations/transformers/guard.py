"""What a loaded model refuses, so that the guarantee cannot be lost in silence."""

from __future__ import annotations

import functools
import inspect
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from layercast.errors import GuaranteeError, UnsupportedError
from layercast.integrations.transformers.adapters import refuse_adapters
from layercast.integrations.transformers.architectures import calls_functions
from layercast.integrations.transformers.attention import ATTENTION
from layercast.integrations.transformers.decoding import LayerCastDecoding
from layercast.integrations.transformers.functions import contracted_functions
from layercast.integrations.transformers.kv_cache import check_cache, round_cache
from layercast.integrations.transformers.position_checks import check_positions
from layercast.integrations.transformers.tensor_parallel import ranks_asked, whole_tensors
from layercast.modules.cache_name import cache_name, rename_cache
from layercast.modules.stored_weights import refuse_casts
from layercast.ops.backends import is_capturing

_SMALLEST_NORMAL = 2.0**-1022
_GRAIN = 32768  # elements below which torch runs an elementwise operation on the calling thread
_ARGUMENTS = ("input_ids", "attention_mask", "position_ids", "inputs_embeds")


class LayerCastModel:
    """Mixed into the classes of a loaded model; see `guard_model`."""

    _stock_class: Any
    _is_decoder: bool

    @property
    def dtype(self) -> torch.dtype:
        """Of activations and caches: float32, whatever the weights are stored in."""
        return torch.float32

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # Before any module is converted, those included that stayed stock.
        refuse_casts(cast("nn.Module", self), fn, recurse=recurse)
        stock: Any = super()
        return stock._apply(fn, recurse)

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

    def gather_sharded_state_dict_for_save(
        self, model_to_save: Any, state_dict: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Called by transformers within `save_pretrained`, on every rank."""
        if ranks_asked(model_to_save.config) > 1:
            state_dict = whole_tensors(model_to_save, state_dict)
        stock: Any = super()
        return stock.gather_sharded_state_dict_for_save(model_to_save, state_dict, *args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # The class is made at run time, so pickle cannot find it by name.
        reduced = cast("tuple[Any, ...]", super().__reduce_ex__(protocol))
        return (_rebuild, (self._stock_class, self._is_decoder), *reduced[2:])


def guard_model(model: PreTrainedModel) -> None:
    """Attach the refusals to a loaded model, in place.

    The classes of the model and of its decoder become subclasses of the same
    name: `dtype` reports float32, `generate` checks how it is to decode, and the
    decoder's forward checks every pass.

    Args:
        model: After loading.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    decoder = model.base_model
    decoder.__class__ = _guarded_class(cast("Any", type(decoder)), True)
    if decoder is not model:
        model.__class__ = _guarded_class(cast("Any", type(model)), False)


@functools.cache
def _guarded_class(cls: Any, is_decoder: bool) -> Any:
    namespace = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        "_stock_class": cls,
        "_is_decoder": is_decoder,
    }
    disable: Any = torch.compiler.disable

    @functools.wraps(cls.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_adapters(self)
        if is_decoder:
            kwargs = dict(zip(_forward_parameters(cls), args, strict=False)) | kwargs
            rename_cache(cache_name(cls.forward), kwargs)
            check_forward(self, kwargs)
            round_cache(self.config, kwargs, cache_name(cls.forward))
            args = ()
        with contracted_functions(calls_functions(self)):
            return cls.forward(self, *args, **kwargs)

    # Compiled, its stock elementwise operations would be fused, and round differently.
    namespace["forward"] = disable(forward)
    decoding = (LayerCastDecoding,) if hasattr(cls, "generate") else ()
    return type(cls.__name__, (LayerCastModel, *decoding, cls), namespace)


def _rebuild(cls: Any, is_decoder: bool) -> PreTrainedModel:
    guarded = _guarded_class(cls, is_decoder)
    return cast("PreTrainedModel", guarded.__new__(guarded))


def check_forward(module: nn.Module, arguments: dict[str, Any]) -> None:
    """Refuse a forward pass whose bits would depend on more than they may.

    Args:
        module: The decoder.
        arguments: Of its forward, by name. While a CUDA graph is captured `position_ids` may be
            put in their place: see `check_positions`.

    Raises:
        GuaranteeError: Training mode, flush-to-zero, or another attention.
        ValueRangeError: Position ids that padding would shift.
        ShapeError: A padding mask shorter than the sequence.
        UnsupportedError: A mask of another kind than padding, or a cache that stores otherwise.
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
    ids, mask, positions, embeds = (arguments.get(name) for name in _ARGUMENTS)
    cache = arguments.get(cache_name(module.forward))
    if arguments.get("output_router_logits"):
        raise UnsupportedError(
            "layercast: `output_router_logits` must be False, got True: the routers that would "
            "hand them over are replaced. Leave it out, in config.json too."
        )
    tokens = ids if ids is not None else embeds
    if tokens is None:
        return  # the model's own error is clear
    widest = max(config.hidden_size, getattr(config, "intermediate_size", None) or 0)
    check_subnormals(0 if tokens.is_cuda else tokens.shape[0] * tokens.shape[1] * widest)
    seen: int | Tensor = 0
    if cache is not None:
        check_cache(cache, capturing=is_capturing(tokens))
        seen = cache.get_seq_length()
    if not tokens.is_cuda:
        seen = int(seen)
    checked = check_positions(positions, mask, seen, tokens)
    if checked is not None:
        arguments["position_ids"] = checked


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
        flushed = not bool((torch.full((chunks * _GRAIN,), 2.0**-127, device="cpu") * 0.5).all())
    if flushed:
        raise GuaranteeError(
            "layercast: subnormal numbers must be kept, got a processor that flushes them to "
            "zero. Call torch.set_flush_denormal(False) before the first operation on tensors; "
            "another library may have set it."
        )
