"""A run as JSON: a record a measurement, with the context it was made in; files merge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from layercast.bench.case import Variant
from layercast.bench.disturbance import QUIET_SHARE
from layercast.bench.environment import context, processor_slug
from layercast.bench.runner import Measurement
from layercast.bench.timing import Schedule, Times
from layercast.bench.workspace import Workspace
from layercast.errors import RecordError
from layercast.study.atomic import write_atomically

SCHEMA_VERSION = 1


def method(schedule: Schedule, workspace: Workspace) -> dict[str, Any]:
    """Return how a run measures, for its context."""
    return {
        "order": "variants in turn, every other round reversed",
        "schedule": asdict(schedule),
        "turn": "pause, untimed calls, as many timed calls as one sample; decode and prefill: "
        "pause, then generate",
        "quiet": f"a round in which others took more than {QUIET_SHARE:.0%} of the cores is "
        "dropped and made again; quiet is false where that could not be had",
        "turn_seconds": workspace.turn_seconds,
        "weight_bytes_between_uses_wanted": workspace.past_bytes,
        "weight_copies_limit_bytes": workspace.memory_bytes,
        "speed": "median seconds of the other / median seconds of layercast; low and high are "
        "quartiles of the ratio round by round",
        "relative_error": "2-norm of the difference to float64 over the 2-norm of float64",
    }


def record(measurement: Measurement) -> dict[str, Any]:
    """Return one measurement as JSON holds it; times in seconds an operation."""
    case = measurement.case
    speeds = {
        str(other): asdict(ratio)
        for other in measurement.times
        if other not in (Variant.LAYERCAST, Variant.FMA_PEAK)
        and (ratio := measurement.speed(other)) is not None
    }
    return {
        "operation": case.operation,
        "sizes": dict(case.sizes),
        "rows": case.rows,
        "weight_dtype": case.weight_dtype,
        "activation_dtype": "float32 (stock_bf16: bfloat16)",
        "input_distribution": case.distribution,
        "seconds": {str(name): times_of(times) for name, times in measurement.times.items()},
        "speed": speeds,
        "fma_per_second": {str(name): rate for name, rate in measurement.rates.items()},
        "share_of_fma_peak": measurement.share_of_peak,
        "checked": dict(measurement.checked),
        "facts": dict(measurement.facts),
        "rounds_dropped": measurement.rounds_dropped,
        "quiet": measurement.quiet,
    }


class RecordFile:
    """A file that grows by a measurement at a time, and is whole after each.

    A file of an earlier run keeps its other cases.

    Raises:
        RecordError: The file holds something else.
    """

    def __init__(self, place: Path, schedule: Schedule, workspace: Workspace) -> None:
        self._context = context() | {"method": method(schedule, workspace)}
        self.path = result_path(place, self._context)
        self._before = read(self.path)
        self._measurements: list[Measurement] = []

    def add(self, measurement: Measurement) -> None:
        """Write the file with one measurement more.

        Raises:
            RecordError: It cannot be written.
        """
        self._measurements.append(measurement)
        write(self.path, merge(self._before, self._context, self._measurements))


def merge(
    before: Mapping[str, Any] | None,
    circumstances: Mapping[str, Any],
    measurements: Iterable[Measurement],
) -> dict[str, Any]:
    """Return a file's contents: what it held, each case measured anew replaced.

    Args:
        before: Contents, or None.
        circumstances: Context of the new measurements.
        measurements: The new ones.
    """
    key = hashlib.sha256(json.dumps(circumstances, sort_keys=True).encode()).hexdigest()[:12]
    added = [{"context": key, **record(measurement)} for measurement in measurements]
    anew = {_identity(entry) for entry in added}
    kept = [] if before is None else before["measurements"]
    entries = [entry for entry in kept if _identity(entry) not in anew] + added
    contexts = ({} if before is None else before["contexts"]) | {key: dict(circumstances)}
    used = {entry["context"] for entry in entries}
    return {
        "schema_version": SCHEMA_VERSION,
        "contexts": {name: contexts[name] for name in contexts if name in used},
        "measurements": entries,
    }


def result_path(place: Path, circumstances: Mapping[str, Any]) -> Path:
    """Return the file to write: `place`, or in a folder the one named for this processor."""
    return place / f"{processor_slug(circumstances['device'])}.json" if place.is_dir() else place


def read(path: Path) -> dict[str, Any] | None:
    """Read a file that an earlier run wrote; None where there is none.

    Raises:
        RecordError: It holds something else, or another schema version.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RecordError(
            f"bench: `--json` must name a new file or one of an earlier run, got {path}, which "
            f"cannot be read as that ({error}). Name another file."
        ) from error
    version = contents.get("schema_version") if isinstance(contents, dict) else None
    if version != SCHEMA_VERSION or not {"contexts", "measurements"} <= set(contents):
        raise RecordError(
            f"bench: `--json` must name a new file or one of schema_version {SCHEMA_VERSION}, got "
            f"{path} with {version!r}. Name another file."
        )
    return dict(contents)


def write(path: Path, contents: Mapping[str, Any]) -> None:
    """Write the file, whole or not at all.

    Raises:
        RecordError: It cannot be written.
    """
    text = json.dumps(contents, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()), then="run it again")


def times_of(times: Times) -> dict[str, Any]:
    """Return samples, median and quartiles as a record holds them."""
    first, third = times.quartiles
    return {
        "median": times.median,
        "first_quartile": first,
        "third_quartile": third,
        "samples": list(times.samples),
    }


def _identity(entry: Mapping[str, Any]) -> str:
    return json.dumps([entry["operation"], entry["sizes"], entry["rows"]])
