"""Between torch and NumPy, without rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layercast.kernels.reference.arithmetic import Float32


def upcast(tensor: Tensor) -> Float32:
    """Values of a float32, bfloat16 or float16 tensor; both 16-bit types are subsets of float32."""
    array: Float32 = tensor.detach().to(torch.float32).numpy()
    return array


def integers(tensor: Tensor) -> NDArray[np.int64]:
    """Values of an int64 tensor."""
    array: NDArray[np.int64] = tensor.detach().numpy()
    return array


def to_tensor(array: NDArray[Any]) -> Tensor:
    """A tensor with the bits of `array`, contiguous."""
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
