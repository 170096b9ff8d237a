"""Turns a loaded model of vLLM into one that computes by our operations, or refuses it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from vllm.model_executor.layers import activation as stock_activation
from vllm.model_executor.layers import layernorm as stock_norms
from vllm.model_executor.layers.attention import Attention
from vllm.model_executor.layers.linear import RowParallelLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.rotary_embedding import Phi3LongRoPEScaledRotaryEmbedding
from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbeddingBase
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
    VocabParallelEmbedding,
)

from layercast.integrations.transformers.config import LayerCastConfig
from layercast.integrations.vllm.activation import GeluAndMul, GeluTanhAndMul, SiluAndMul
from layercast.integrations.vllm.attention import LayerCastAttentionBackend
from layercast.integrations.vllm.coverage import check_coverage
from layercast.integrations.vllm.embedding import VocabularyParallel
from layercast.integrations.vllm.linear import RowParallel
from layercast.integrations.vllm.logits import Logits
from layercast.integrations.vllm.methods import LayerCastEmbeddingMethod, LayerCastLinearMethod
from layercast.integrations.vllm.norms import RMSNorm
from layercast.integrations.vllm.ranks import tensor_parallel_ranks
from layercast.integrations.vllm.rotary import rotary_of
from layercast.integrations.vllm.settings import attention_obstacle, refuse_or_mark
from layercast.integrations.vllm.storage import narrowed, never_loaded


def convert_model(model: nn.Module, vllm_config: Any, options: LayerCastConfig) -> list[str]:
    """Exchange what computes, in place, and check that nothing was left out.

    Args:
        model: With its weights.
        vllm_config: Of the engine.
        options: Of the quantization method.

    Returns:
        What voids the guarantee where the user allowed that.

    Raises:
        UnsupportedError: A module is not covered; names it.
        ValueRangeError: A number of ranks that the contract has no tree for.
    """
    config = vllm_config.model_config.hf_text_config
    positions = vllm_config.model_config.max_model_len
    ranks = tensor_parallel_ranks()
    if options.storage_dtype is not None:
        # Norms and biases, which vLLM holds in float32: they too are of the model asked for.
        for parameter in model.parameters():
            parameter.data = parameter.data.to(options.storage_dtype)
    allowed = _check_loaded(model)
    made: dict[int, nn.Module | None] = {}  # shared modules stay shared
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if id(module) not in made:
            _convert_in_place(module, config, ranks)
            made[id(module)] = _replacement(
                module, config, positions=positions, context_length=options.context_length
            )
        replacement = made[id(module)]
        if replacement is not None:
            model.set_submodule(name, replacement)
    allowed += check_coverage(model, config, ranks)
    for module in model.modules():
        method = getattr(module, "quant_method", None)
        if isinstance(method, LayerCastLinearMethod | LayerCastEmbeddingMethod):
            method.converted = True
    return allowed


def _check_loaded(model: nn.Module) -> list[str]:
    for name, parameter in model.named_parameters():
        if never_loaded(parameter):
            what = f"got `{name}` from none of them"
            return [refuse_or_mark(f"`--load-format` must use vLLM's loaders of weights, {what}")]
    return []


def _replacement(module: nn.Module, config: Any, **rotary: Any) -> nn.Module | None:
    cls: Any = type(module)
    norm: Any = module
    if cls is stock_norms.RMSNorm and norm.has_weight and norm.variance_size_override is None:
        return RMSNorm(norm.weight, eps=norm.variance_epsilon, unit_offset=False)
    if cls is stock_norms.GemmaRMSNorm:
        return RMSNorm(norm.weight, eps=norm.variance_epsilon, unit_offset=True)
    if cls is stock_activation.SiluAndMul:
        return SiluAndMul()
    if cls is stock_activation.GeluAndMul:
        return {"none": GeluAndMul, "tanh": GeluTanhAndMul}[norm.approximate]()
    if isinstance(module, RotaryEmbeddingBase | Phi3LongRoPEScaledRotaryEmbedding):
        return rotary_of(module, config, **rotary)
    return None


def _convert_in_place(module: Any, config: Any, ranks: Any) -> None:
    """Layers that hold weights or a cache stay where vLLM knows them."""
    cls = type(module)
    if cls in (VocabParallelEmbedding, ParallelLMHead):
        if type(module.quant_method) is UnquantizedEmbeddingMethod:
            _store(module, config)
        if cls is VocabParallelEmbedding and ranks.size > 1 and _one_run(module):
            module.__class__, module.ranks = VocabularyParallel, ranks
    elif cls is RowParallelLinear and module.tp_size > 1 and module.reduce_results:
        module.__class__, module.ranks = RowParallel, ranks
    elif cls is LogitsProcessor and not module.logits_as_input:
        divisor = getattr(config, "logits_scaling", None) or 1.0
        if module.scale == 1.0 / divisor:
            module.__class__, module.divisor = Logits, divisor
    elif cls is Attention and attention_obstacle(module) is None:
        _convert_attention(module)


def _one_run(module: Any) -> bool:
    """Whether each rank's rows are one run of the vocabulary."""
    whole: bool = module.num_added_embeddings == 0 and module.reduce_results
    return whole and module.parallel_group is None and not module.disable_tp


def _store(module: Any, config: Any) -> None:
    """An embedding that the model's code makes without a quantization method."""
    dtype = getattr(config, "dtype", None)
    if isinstance(dtype, torch.dtype) and dtype.is_floating_point:
        module.weight.data = narrowed(module.weight.data, dtype)
    module.quant_method = LayerCastEmbeddingMethod(None)
    # vLLM's own copy of the weight for its own products.
    module.__dict__.pop("cpu_linear", None)


def _convert_attention(layer: Any) -> None:
    stock = layer.impl
    layer.attn_backend = LayerCastAttentionBackend
    layer.impl = LayerCastAttentionBackend.get_impl_cls()(
        layer.num_heads,
        layer.head_size,
        stock.scale,
        layer.num_kv_heads,
        None,
        layer.sliding_window,
        layer.kv_cache_dtype,
        getattr(stock, "logits_soft_cap", None) or None,
        layer.attn_type,
    )
