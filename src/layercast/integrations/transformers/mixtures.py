"""Recognises routers and experts by what they compute on a small scale."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from layercast.integrations.transformers.activations import activation_of
from layercast.integrations.transformers.probing import GATE_SCALES, agree, run
from layercast.modules import GELU, Experts, GELUTanh, Router, SiLU

_ROWS = 5
_SMALL = {"experts": 3, "hidden": 16, "intermediate": 8}
_NAMES: dict[Any, str] = {SiLU: "silu", GELU: "gelu", GELUTanh: "gelu_tanh"}


def router_of(module: Any, name: str, dtypes: Mapping[str, torch.dtype]) -> Router | None:
    """Our router with the rule of a stock one.

    Args:
        module: Any module, on any device; the default device is the CPU.
        name: Of the module in its model.
        dtypes: Storage dtype of each parameter of the model.

    Returns:
        The router; None if the module is none, or follows another rule than softmax and top-k.
    """
    top_k = getattr(module, "top_k", None)
    parameters = dict(module.named_parameters())
    if not isinstance(top_k, int) or set(parameters) != {"weight"}:
        return None
    stored = parameters["weight"]
    if stored.ndim != 2:
        return None
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(stored.shape, generator=generator) / stored.shape[1] ** 0.5
    rows = torch.randn((_ROWS, stored.shape[1]), generator=generator)
    probe = copy.deepcopy(module).train(False)
    probe.weight = nn.Parameter(weight, requires_grad=False)
    got = run(probe, rows)
    if not isinstance(got, tuple) or len(got) != 3:
        return None
    for renormalize in (True, False):
        expected = _routed(rows, weight, top_k, renormalize)
        if all(agree(a, b) for a, b in zip(got, expected, strict=True)):
            return Router(
                *stored.shape,
                top_k=top_k,
                renormalize=renormalize,
                weight_dtype=dtypes[f"{name}.weight"],
                device=stored.device,
            )
    return None


def _routed(rows: Tensor, weight: Tensor, top_k: int, renormalize: bool) -> tuple[Tensor, ...]:
    logits = rows.double() @ weight.double().T
    values, indices = logits.softmax(-1).topk(top_k)
    return logits, values / values.sum(-1, keepdim=True) if renormalize else values, indices


def experts_of(module: Any, name: str, dtypes: Mapping[str, torch.dtype]) -> Experts | None:
    """Our experts with the formula of stock ones.

    Args:
        module: Any module, on any device; the default device is the CPU.
        name: Of the module in its model.
        dtypes: Storage dtype of each parameter of the model.

    Returns:
        The experts; None if the module is none, or computes something else.
    """
    parameters = dict(module.named_parameters())
    activation = _NAMES.get(type(activation_of(getattr(module, "act_fn", None))))
    if set(parameters) != {"gate_up_proj", "down_proj"} or activation is None:
        return None
    gate_up, down = parameters["gate_up_proj"], parameters["down_proj"]
    if down.ndim != 3 or gate_up.shape != (down.shape[0], 2 * down.shape[2], down.shape[1]):
        return None
    if not _is_gated_sum(module):
        return None
    return Experts(
        *down.shape,
        activation=activation,
        gate_up_dtype=dtypes[f"{name}.gate_up_proj"],
        down_dtype=dtypes[f"{name}.down_proj"],
        device=down.device,
    )


def _is_gated_sum(module: Any) -> bool:
    """Run a copy with few and small experts: the whole ones may take gigabytes."""
    E, H, I = _SMALL.values()  # noqa: E741
    generator = torch.Generator().manual_seed(0)
    gate_up = torch.randn((E, 2 * I, H), generator=generator)
    down = torch.randn((E, H, I), generator=generator)
    rows = torch.randn((_ROWS, H), generator=generator)
    indices = torch.stack([torch.randperm(E, generator=generator)[:2] for _ in range(_ROWS)])
    weights = torch.rand((_ROWS, 2), generator=generator)
    probe = copy.copy(module)  # its parameters are about to be others; nothing else is changed
    probe.training = False
    sizes = {"num_experts": E, "hidden_dim": H, "hidden_size": H, "intermediate_dim": I}
    for attribute, size in sizes.items():
        if hasattr(module, attribute):
            setattr(probe, attribute, size)
    if hasattr(module, "config"):
        probe.config = copy.copy(module.config)
        probe.config._experts_implementation = "eager"
    for scale in GATE_SCALES:
        first, second = gate_up * scale, down / scale**2
        probe._parameters = {
            "gate_up_proj": nn.Parameter(first, requires_grad=False),
            "down_proj": nn.Parameter(second, requires_grad=False),
        }
        expected = torch.zeros_like(rows, dtype=torch.float64)
        for e in range(E):
            gate, up = (rows.double() @ first[e].double().T).chunk(2, -1)
            out = (module.act_fn(gate) * up) @ second[e].double().T
            expected += out * (weights * (indices == e)).sum(-1, keepdim=True)
        if not agree(run(probe, rows, indices, weights), expected):
            return False
    return True
