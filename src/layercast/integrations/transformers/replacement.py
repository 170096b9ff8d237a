"""Swaps a model's modules for ours while it is still a skeleton on the meta device."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from layercast import modules
from layercast.errors import ValueRangeError
from layercast.integrations.transformers.activations import activation_of
from layercast.integrations.transformers.gated_mlps import gated_mlp_of
from layercast.integrations.transformers.mixtures import experts_of, router_of
from layercast.integrations.transformers.norms import norm_of
from layercast.integrations.transformers.probing import run
from layercast.integrations.transformers.rope import rotary_embedding
from layercast.integrations.transformers.rotary_calls import rotate_by_ours


def replace_modules(
    model: PreTrainedModel,
    dtypes: Mapping[str, torch.dtype],
    *,
    left_out: Sequence[str] = (),
    context_length: int | None = None,
) -> None:
    """Replace each module that computes by ours, its parameters in their storage dtype.

    Modules this does not know stay, with float32 parameters; `architectures.stock_modules` then
    names them.

    Args:
        model: A skeleton on the meta device.
        dtypes: Storage dtype of each parameter.
        left_out: Modules to leave stock; see `is_left_out`.
        context_length: See `rope.rotary_embedding`.

    Raises:
        ValueRangeError: An entry of `left_out` is no module of the model.
    """
    _check_left_out(model, left_out)
    for name, module in list(model.named_modules()):
        if is_left_out(name, left_out):
            continue
        with torch.device("cpu"):  # stock modules are tried on real numbers
            replacement = _replacement(module, name, dtypes, left_out, context_length)
            if replacement is None:
                rotate_by_ours(module)
                continue
        replacement.train(module.training)
        model.set_submodule(name, replacement)


def is_left_out(name: str, left_out: Sequence[str]) -> bool:
    """Whether a module or parameter lies in one that is left stock.

    Args:
        name: Dotted path in the model.
        left_out: Runs of whole components anywhere in the path: "lm_head", "layers.0",
            "mlp.down_proj".

    Returns:
        True if any of them occurs in the path.
    """
    return any(f".{entry}." in f".{name}." for entry in left_out)


def _check_left_out(model: PreTrainedModel, left_out: Sequence[str]) -> None:
    names = [name for name, _ in model.named_modules()]
    for entry in left_out:
        if not any(is_left_out(name, (entry,)) for name in names):
            raise ValueRangeError(
                "LayerCastConfig: `modules_to_not_convert` must name modules of the model, got "
                f"{entry!r}, which {type(model).__name__} does not have. Take names from "
                "model.named_modules(), whole components such as 'lm_head' or 'layers.0.mlp'."
            )


def _replacement(
    module: nn.Module,
    name: str,
    dtypes: Mapping[str, torch.dtype],
    left_out: Sequence[str],
    context_length: int | None,
) -> nn.Module | None:
    cls = type(module)
    if cls in (nn.Linear, Conv1D):
        return _linear(module, name, dtypes)
    if isinstance(module, nn.Embedding) and module.max_norm is None:
        return _embedding(module, name, dtypes)
    if cls.__name__.endswith("RotaryEmbedding"):
        return rotary_embedding(module, context_length)
    if (activation := activation_of(module)) is not None:
        return activation
    network = gated_mlp_of(module)
    if network and not is_left_out(f"{name}.{network.activation_name}", left_out):
        return network
    for recognised in (norm_of, router_of, experts_of):
        if (replacement := recognised(module, name, dtypes)) is not None:
            return replacement
    return None


def _linear(
    module: Any, name: str, dtypes: Mapping[str, torch.dtype]
) -> modules.Linear | modules.TransposedLinear:
    cls = modules.Linear if isinstance(module, nn.Linear) else modules.TransposedLinear
    features = reversed(module.weight.shape) if cls is modules.Linear else module.weight.shape
    return cls(
        *features,
        weight_dtype=dtypes[f"{name}.weight"],
        bias_dtype=None if module.bias is None else dtypes[f"{name}.bias"],
        device=module.weight.device,
    )


def _embedding(
    module: nn.Embedding, name: str, dtypes: Mapping[str, torch.dtype]
) -> modules.Embedding | None:
    scale = None if type(module) is nn.Embedding else _scale_of(module)
    if type(module) is not nn.Embedding and scale is None:
        return None
    return modules.Embedding(
        module.num_embeddings,
        module.embedding_dim,
        weight_dtype=dtypes[f"{name}.weight"],
        padding_idx=module.padding_idx,
        scale=scale,
        device=module.weight.device,
    )


def _scale_of(module: nn.Embedding) -> float | None:
    """The factor of a scaled embedding; None where it does something else than scaling."""
    names = ("scalar_embed_scale", "embed_scale")
    scale = next((s for n in names if isinstance(s := getattr(module, n, None), float)), None)
    if scale is None:
        return None
    probe = copy.deepcopy(module)
    weight = torch.linspace(-1.0, 1.0, 3 * module.embedding_dim).view(3, -1)
    probe.weight = nn.Parameter(weight, requires_grad=False)
    for name, _ in module.named_buffers():
        setattr(probe, name, torch.tensor(scale))
    rows = run(probe, torch.arange(3))
    return scale if isinstance(rows, Tensor) and torch.equal(rows, weight * scale) else None
