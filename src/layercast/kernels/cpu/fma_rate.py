"""The processor's rate of fused multiply-adds: what `linear` at many rows is measured against."""

from __future__ import annotations

import torch

from layercast.kernels.cpu.isa import csrc

_UNITS_PER_THREAD = 4


def fma_rate(steps: int) -> int:
    """Make independent chains of float32 fused multiply-adds in registers, on torch's threads.

    Args:
        steps: Length of each chain; the time is proportional to it.

    Returns:
        Scalar fused multiply-adds made, over all chains, lanes and threads.
    """
    threads = torch.get_num_threads()
    return int(csrc.fma_rate(_UNITS_PER_THREAD * threads, steps, threads))
