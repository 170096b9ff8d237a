"""Swaps a model's modules for ours while it is still a skeleton on the meta device."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.activations import SiLUActivation

from layercast.errors import UnsupportedError
from layercast.integrations.transformers.rope import rope_frequencies_of
from layercast.modules import Embedding, Linear, RMSNorm, RotaryEmbedding, SiLU

# A float32 norm of a few hundred terms errs by far less, one with another formula by far more.
_AGREEMENT = 1e-4


def replace_modules(model: PreTrainedModel, dtypes: Mapping[str, torch.dtype]) -> None:
    """Replace each module that computes by ours, its parameters in their storage dtype.

    Modules this does not know stay; `architectures.check_modules` then names them.

    Args:
        model: A skeleton on the meta device.
        dtypes: Storage dtype of each parameter.

    Raises:
        UnsupportedError: A norm or rotary embedding does something else than its name says.
    """
    for name, module in list(model.named_modules()):
        replacement = _replacement(module, name, dtypes)
        if replacement is not None:
            replacement.train(module.training)
            model.set_submodule(name, replacement)


def _replacement(
    module: nn.Module, name: str, dtypes: Mapping[str, torch.dtype]
) -> nn.Module | None:
    cls = type(module)
    if isinstance(module, nn.Linear) and cls is nn.Linear:
        return Linear(
            module.in_features,
            module.out_features,
            weight_dtype=dtypes[f"{name}.weight"],
            bias_dtype=None if module.bias is None else dtypes[f"{name}.bias"],
            device=module.weight.device,
        )
    if isinstance(module, nn.Embedding) and cls is nn.Embedding and module.max_norm is None:
        return Embedding(
            module.num_embeddings,
            module.embedding_dim,
            weight_dtype=dtypes[f"{name}.weight"],
            padding_idx=module.padding_idx,
            device=module.weight.device,
        )
    if cls.__name__.endswith("RMSNorm"):
        return _rms_norm(module, name, dtypes)
    if cls.__name__.endswith("RotaryEmbedding"):
        return RotaryEmbedding(rope_frequencies_of(module, name))
    if cls in (nn.SiLU, SiLUActivation):
        return SiLU()
    return None


def _rms_norm(module: nn.Module, name: str, dtypes: Mapping[str, torch.dtype]) -> RMSNorm:
    eps = getattr(module, "variance_epsilon", None)
    parameters = dict(module.named_parameters())
    if isinstance(eps, float) and set(parameters) == {"weight"} and parameters["weight"].ndim == 1:
        weight = parameters["weight"]
        if _is_plain_rms_norm(module, weight.shape[0], eps):
            dtype = dtypes[f"{name}.weight"]
            return RMSNorm(weight.shape[0], eps=eps, weight_dtype=dtype, device=weight.device)
    raise UnsupportedError(
        f"layercast: `{name}` must be `x / rms(x) * weight`, got another formula in "
        f"{type(module).__name__}. Load this model without layercast."
    )


def _is_plain_rms_norm(module: nn.Module, size: int, eps: float) -> bool:
    """Run the stock norm on one row and compare: a name is no proof of a formula."""
    probe = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn((2, size), generator=generator, device="cpu", dtype=torch.float32)
    probe.weight = nn.Parameter(weight, requires_grad=False)
    with torch.inference_mode():
        got = probe(x).double()
    wide = x.double()
    expected = wide / (wide.pow(2).mean() + eps).sqrt() * weight.double()
    return torch.allclose(got, expected, rtol=_AGREEMENT, atol=_AGREEMENT * eps)
