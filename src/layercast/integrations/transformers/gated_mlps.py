"""Recognises gated feed-forward networks by what they compute on a small scale."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from layercast.integrations.transformers.activations import activation_of
from layercast.integrations.transformers.probing import agree, run
from layercast.modules import FusedGatedMLP, GatedMLP

_ROWS, _H, _I = 5, 16, 8


def gated_mlp_of(module: nn.Module) -> GatedMLP | FusedGatedMLP | None:
    """Our network with the formula of a stock one, holding its layers as they are.

    Args:
        module: Any module, on any device; the default device is the CPU.

    Returns:
        The network; None if the module is none, or computes something else.
    """
    layers: dict[str, Any] = dict(module.named_children())
    if any(True for _ in module.parameters(recurse=False)):
        return None
    networks: tuple[Any, ...] = (GatedMLP, FusedGatedMLP)
    for network in networks:
        names, activation_name = network.layer_names, network.activation_name
        if set(layers) != {*names, activation_name}:
            continue
        activation: Any = activation_of(layers[activation_name])
        if hasattr(activation, "gated") and _follows(module, names, activation_name):
            ours: GatedMLP | FusedGatedMLP = network(*(layers[n] for n in names), activation)
            return ours
    return None


def _follows(module: nn.Module, names: tuple[str, ...], activation_name: str) -> bool:
    """Run a copy with small layers: the whole ones may take gigabytes."""
    generator = torch.Generator().manual_seed(0)
    *first, down = names
    small = {name: _layer(_H, 2 * _I // len(first), generator) for name in first}
    small[down] = _layer(_I, _H, generator)
    activation: Any = module.get_submodule(activation_name)
    probe = copy.copy(module)
    probe._modules = {**small, activation_name: activation}
    rows = torch.randn((_ROWS, _H), generator=generator, dtype=torch.float32)
    both = torch.cat([rows.double() @ small[name].weight.double().T for name in first], -1)
    gate, up = both.chunk(2, -1)
    expected = (activation(gate) * up) @ small[down].weight.double().T
    return agree(run(probe, rows), expected)


def _layer(in_features: int, out_features: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(in_features, out_features, bias=False)
    layer.weight = nn.Parameter(
        torch.randn((out_features, in_features), generator=generator, dtype=torch.float32),
        requires_grad=False,
    )
    return layer
