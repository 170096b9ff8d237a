"""Recognises gated feed-forward networks by what they compute on a small scale."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from layercast.integrations.transformers.activations import activation_of
from layercast.integrations.transformers.probing import GATE_SCALES, agree, run
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
    if module._parameters or module._buffers:
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

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float32)

    *first, down = names
    activation: Any = module.get_submodule(activation_name)
    rows = random(_ROWS, _H)
    weights = {name: random(2 * _I // len(first), _H) for name in first} | {down: random(_H, _I)}
    for scale in GATE_SCALES:
        scaled = {n: w * scale for n, w in weights.items()} | {down: weights[down] / scale**2}
        probe = copy.copy(module)
        probe.training = False
        probe._modules = {name: _layer(weight) for name, weight in scaled.items()}
        probe._modules[activation_name] = activation
        both = torch.cat([rows.double() @ scaled[name].double().T for name in first], -1)
        gate, up = both.chunk(2, -1)
        expected = (activation(gate) * up) @ scaled[down].double().T
        if not agree(run(probe, rows), expected):
            return False
    return True


def _layer(weight: Tensor) -> nn.Linear:
    # On meta: made there, it draws no random numbers.
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer
