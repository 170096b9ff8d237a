"""The tensor-parallel ranks of vLLM, as our modules know them."""

from __future__ import annotations

from vllm.distributed import get_tp_group

from layercast.errors import ValueRangeError
from layercast.modules.tensor_parallel import Ranks

SIZES = (1, 2, 4, 8)
"""Numbers of ranks that deal out the 8 shards of a reduction evenly."""


def tensor_parallel_ranks() -> Ranks:
    """Who holds this process's layers together.

    Raises:
        ValueRangeError: Another number of ranks than 1, 2, 4 or 8.
    """
    group = get_tp_group()
    if group.world_size not in SIZES:
        raise ValueRangeError(
            "layercast: `tensor_parallel_size` must be 1, 2, 4 or 8, got "
            f"{group.world_size}: a reduction has 8 shards to deal out."
        )
    return Ranks(group.device_group.group_name, group.rank_in_group, group.world_size)
