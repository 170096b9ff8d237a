"""Recognises a model's norms by what they compute: a name is no proof of a formula."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from layercast.integrations.transformers.probing import agree, run
from layercast.modules import LayerNorm, RMSNorm

_EPS_NAMES = ("variance_epsilon", "eps", "epsilon", "norm_eps")


def norm_of(module: nn.Module, name: str, dtypes: Mapping[str, torch.dtype]) -> nn.Module | None:
    """Our norm with the formula of a stock one.

    Args:
        module: Any module, on any device; the default device is the CPU.
        name: Of the module in its model.
        dtypes: Storage dtype of each parameter of the model.

    Returns:
        The norm; None if the module is no norm, or one of another formula.
    """
    if not type(module).__name__.endswith("Norm"):
        return None
    parameters = dict(module.named_parameters())
    eps = next((e for n in _EPS_NAMES if isinstance(e := getattr(module, n, None), float)), None)
    if eps is None or not set(parameters) <= {"weight", "bias"}:
        return None
    shapes = {tuple(parameter.shape) for parameter in parameters.values()}
    if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
        return None
    size = next(iter(shapes))[0] if shapes else _declared_size(module)
    formula = None if size is None else _formula(module, size, eps)
    if size is None or formula is None:
        return None
    device = parameters["weight"].device if "weight" in parameters else torch.device("cpu")
    weight_dtype = dtypes[f"{name}.weight"] if "weight" in parameters else None
    if formula is _layer_norm:
        bias_dtype = dtypes[f"{name}.bias"] if "bias" in parameters else None
        return LayerNorm(
            size, eps=eps, weight_dtype=weight_dtype, bias_dtype=bias_dtype, device=device
        )
    offset = formula is _unit_offset_rms_norm
    return RMSNorm(size, eps=eps, weight_dtype=weight_dtype, unit_offset=offset, device=device)


def _declared_size(module: nn.Module) -> int | None:
    size: Any = getattr(module, "hidden_size", None) or getattr(module, "normalized_shape", None)
    if isinstance(size, tuple) and len(size) == 1:
        size = size[0]
    return size if isinstance(size, int) else None


def _rms_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor | None:
    scaled = x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    return None if bias is not None else scaled if weight is None else scaled * weight


def _unit_offset_rms_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor | None:
    return None if weight is None else _rms_norm(x, 1.0 + weight, bias, eps)


def _layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()
    scaled = scaled if weight is None else scaled * weight
    return scaled if bias is None else scaled + bias


def _formula(module: nn.Module, size: int, eps: float) -> Callable[..., Tensor | None] | None:
    """Which formula the module follows on random rows, one so small that `eps` decides it."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32)

    probe = copy.deepcopy(module).train(False)
    values = {name: random(size) for name, _ in probe.named_parameters()}
    for name, value in values.items():
        setattr(probe, name, nn.Parameter(value, requires_grad=False))
    x = random(2, size) * torch.tensor([[1.0], [(eps or 1e-6) ** 0.5]])
    got = run(probe, x)
    weight, bias = (values[n].double() if n in values else None for n in ("weight", "bias"))
    for formula in (_rms_norm, _unit_offset_rms_norm, _layer_norm):
        expected = formula(x.double(), weight, bias, eps)
        if expected is not None and agree(got, expected):
            return formula
    return None
