"""Whether a write by index hits the same element twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def repeats(name: str, arguments: dict[str, Any]) -> bool:
    """Whether two writes of one call go to the same place.

    Args:
        name: "scatter", "index_copy" or an `index_put`.
        arguments: Of the call, by the names of its schema.

    Returns:
        True where they do, so that the result depends on their order.
    """
    if name == "index_copy":
        return _has_duplicates(arguments["index"].reshape(-1))
    if name == "scatter":
        return _scatter_repeats(int(arguments["dim"]), arguments["index"])
    return _index_put_repeats(arguments["self"], arguments["indices"])


def _scatter_repeats(dim: int, index: Tensor) -> bool:
    if index.dim() == 0:
        return False
    rows = index.movedim(dim, -1)
    ordered = rows.sort(dim=-1).values
    return bool((ordered[..., 1:] == ordered[..., :-1]).any())


def _index_put_repeats(target: Tensor, indices: Any) -> bool:
    given = []
    axis = 0
    for index in indices:
        if index is None:
            axis += 1
        elif index.dtype in (torch.bool, torch.uint8):
            places = index.nonzero(as_tuple=True)
            given += [(axis + offset, place) for offset, place in enumerate(places)]
            axis += index.dim()
        else:
            size = target.shape[axis]
            given.append((axis, torch.where(index < 0, index + size, index)))
            axis += 1
    if not given:
        return False
    flat = torch.zeros((), dtype=torch.int64)
    for axis, place in given:
        flat = flat * target.shape[axis] + place
    return _has_duplicates(flat.reshape(-1))


def _has_duplicates(values: Tensor) -> bool:
    ordered = values.sort().values
    return bool((ordered[1:] == ordered[:-1]).any())
