"""Every module of a converted model must be one that is known to keep the contract."""

from __future__ import annotations

from typing import Any

from torch import nn
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    ReplicatedLinear,
    RowParallelLinear,
)
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)
from vllm.model_executor.models.utils import PPMissingLayer

from layercast.errors import GuaranteeError
from layercast.integrations.vllm.activation import GeluAndMul, GeluTanhAndMul, SiluAndMul
from layercast.integrations.vllm.architectures import READ, read_modules, uncovered_option
from layercast.integrations.vllm.attention import PagedAttention
from layercast.integrations.vllm.embedding import VocabularyParallel
from layercast.integrations.vllm.linear import RowParallel
from layercast.integrations.vllm.logits import Logits
from layercast.integrations.vllm.methods import LayerCastEmbeddingMethod, LayerCastLinearMethod
from layercast.integrations.vllm.norms import RMSNorm
from layercast.integrations.vllm.rotary import RotaryEmbedding
from layercast.integrations.vllm.settings import refuse_or_mark

_OURS = (GeluAndMul, GeluTanhAndMul, Logits, RMSNorm, RotaryEmbedding, SiluAndMul)
# Each output depends on its own row of the weight; ranks' outputs are only put side by side.
_BY_ROWS = (ColumnParallelLinear, MergedColumnParallelLinear, QKVParallelLinear, ReplicatedLinear)
_WITHOUT_ARITHMETIC = (nn.Identity, nn.ModuleList, nn.ModuleDict, PPMissingLayer)


def check_coverage(model: nn.Module, config: Any, ranks: Any) -> list[str]:
    """Refuse a model that holds a module of which nothing is known.

    Args:
        model: After its conversion.
        config: Of the model.
        ranks: Who holds it together.

    Returns:
        What voids the guarantee where the user allowed that.

    Raises:
        UnsupportedError: Names the first such module and its class, or the model whose code was
            not read; see `settings.refuse_or_mark`.
        GuaranteeError: A module would be compiled.
    """
    homes = read_modules(model)
    allowed = []
    if not homes:
        read = ", ".join(sorted(READ))
        what = f"the model must be one of {read}, whose code was read, got {_class_name(model)}"
        allowed.append(refuse_or_mark(what))
    if (option := uncovered_option(config)) is not None:
        allowed.append(refuse_or_mark(f"`{option}` of config.json must be left out"))
    for name, module in model.named_modules():
        if not getattr(module, "do_not_compile", True):
            raise GuaranteeError(
                f"layercast: `{name}` must not be compiled: elementwise operations would be fused, "
                "and round differently. Pass --enforce-eager."
            )
        if not _is_covered(module, homes, ranks.size):
            what = f"`{name}` of class {_class_name(module)}"
            allowed.append(
                refuse_or_mark(f"every module must be covered by the contract, got {what}")
            )
    return allowed


def _class_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _is_covered(module: Any, homes: tuple[str, ...], ranks: int) -> bool:
    cls = type(module)
    if cls in _OURS or cls in _WITHOUT_ARITHMETIC:
        return True
    if cls in _BY_ROWS or cls is RowParallel:
        return type(module.quant_method) is LayerCastLinearMethod
    if cls is RowParallelLinear:
        return type(module.quant_method) is LayerCastLinearMethod and module.tp_size == 1
    if cls in (ParallelLMHead, VocabularyParallel):
        return type(module.quant_method) is LayerCastEmbeddingMethod
    if cls is VocabParallelEmbedding:
        return type(module.quant_method) is LayerCastEmbeddingMethod and module.tp_size == 1
    if cls is Attention:
        return type(module.impl) is PagedAttention
    composed = any(True for _ in module.children()) and not module._parameters
    return composed and cls.__module__ in homes
