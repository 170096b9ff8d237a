"""Which engines' models lie in memory at once: rivals in groups, layercast in every one."""

from __future__ import annotations

from peers.engines import OURS

#: Of a process beside its weights: libraries, keys and values, activations, a layer's float32 copy.
OVERHEAD_BYTES = 1_500_000_000


def model_bytes(engine, parameters):
    """Return about what an engine's process takes."""
    return engine.parameter_bytes * parameters + OVERHEAD_BYTES


def grouped(engines, parameters, limit_bytes):
    """Put engines into groups that fit into memory, in their order.

    Args:
        engines: layercast among them.
        parameters: Of the model.
        limit_bytes: What a group may take. A pair is a group even where that is more.

    Returns:
        Lists of engines, layercast first in each; engines in the same group are interleaved.
    """
    (ours,) = (engine for engine in engines if engine.name == OURS)
    groups, taken = [[ours]], model_bytes(ours, parameters)
    for engine in engines:
        if engine.name == OURS:
            continue
        more = model_bytes(engine, parameters)
        if len(groups[-1]) > 1 and taken + more > limit_bytes:
            groups.append([ours])
            taken = model_bytes(ours, parameters)
        groups[-1].append(engine)
        taken += more
    return groups
