"""The manifest: what a run folder holds, what it was made with, and whether it may be resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from layercast.errors import RecordError
from layercast.study import provenance
from layercast.study.atomic import write_atomically

#: Version of the run folder's layout, of the manifest and of the records' columns.
SCHEMA_VERSION = 1

# Versions that may change an answer. The others are recorded only.
_DECISIVE_VERSIONS = ("layercast", "torch", "transformers", "tokenizers")


class Start(BaseModel):
    """One start of the run: the first, and each time it was resumed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: str
    arguments: list[str]
    commit: str | None
    dirty: bool | None


class WorkerState(BaseModel):
    """What a worker was started with, and what its engine reported of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: dict[str, str]
    facts: dict[str, Any]


class Manifest(BaseModel):
    """Contents of ``manifest.json``.

    `resolved` is the plan as fitted to the machine (also in ``plan.json``); `workers` is keyed
    by ``<precision>/<instruction set>-t<threads>``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    numerics_version: int
    plan_digest: str
    resolved: dict[str, Any]
    problems_digest: str
    model_name: str
    model_files: dict[str, dict[str, Any]]
    versions: dict[str, str]
    device: dict[str, Any]
    starts: list[Start]
    workers: dict[str, WorkerState] = {}

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for a run to be resumed."""
        plan = {key: value for key, value in self.resolved["plan"].items() if key != "model"}
        return {
            "schema_version": self.schema_version,
            "numerics_version": self.numerics_version,
            "plan": plan,
            "configurations": self.resolved["configurations"],
            "problems": self.problems_digest,
            "model files": self.model_files,
            "versions": {name: self.versions.get(name) for name in _DECISIVE_VERSIONS},
            "device": {
                name: self.device.get(name) for name in ("cpu_model", "architecture", "cpu_flags")
            },
        }

    def with_start(self, start: Start) -> Manifest:
        """Return a copy with one more start."""
        return self.model_copy(update={"starts": [*self.starts, start]})

    def with_worker(self, name: str, state: WorkerState) -> Manifest:
        """Return a copy with a worker's state.

        Raises:
            RecordError: the same worker reported another state when it ran before, so its
                records would not belong together.
        """
        before = self.workers.get(name)
        if before is not None and before != state:
            raise RecordError(
                f"study run: worker {name} must run as it did before, got "
                f"{_first_differences(before.model_dump(), state.model_dump())}. "
                "Start the study into another folder."
            )
        return self.model_copy(update={"workers": {**self.workers, name: state}})


def this_start() -> Start:
    """Return the start that is happening now."""
    return Start(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        arguments=provenance.command_line(),
        **provenance.source_state(),
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` and ``plan.json``; each is complete or absent."""
    write_json(folder / "plan.json", manifest.resolved)
    write_json(folder / "manifest.json", manifest.model_dump(mode="json"))


def read_manifest(folder: Path) -> Manifest:
    """Read a run folder's manifest.

    Raises:
        RecordError: there is none, it is damaged, or it is of another schema version.
    """
    path = folder / "manifest.json"
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        version = tree.get("schema_version")
        if version == SCHEMA_VERSION:
            return Manifest.model_validate(tree)
    except FileNotFoundError as error:
        raise RecordError(
            f"read_manifest: `{folder}` must be a run folder, got one without manifest.json. "
            "Name the folder given to `layercast study run --out`."
        ) from error
    except (OSError, ValueError, AttributeError, ValidationError) as error:
        raise RecordError(
            f"read_manifest: `{path}` must be a run's manifest, got {type(error).__name__}. "
            "Restore the file, or run the study into another folder."
        ) from error
    raise RecordError(
        f"read_manifest: `{path}` must have schema_version {SCHEMA_VERSION}, got {version!r}. "
        "Read it with the version of layercast that wrote it."
    )


def require_same_run(recorded: Manifest, now: Manifest, folder: Path) -> None:
    """Refuse to resume a run whose answers would not belong with those already there.

    Raises:
        RecordError: plan, problems, model files, versions or device differ; says which.
    """
    if recorded.identity() != now.identity():
        raise RecordError(
            f"study run: `{folder}` holds another run than this one: "
            f"{_first_differences(recorded.identity(), now.identity())}. "
            "Use another folder, or start with what the run began with to resume it."
        )


def digest_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is complete or absent."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def _first_differences(there: Any, here: Any, limit: int = 4) -> str:
    found = list(_differences(there, here, ""))
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return "; ".join(found[:limit]) + more


def _differences(there: Any, here: Any, path: str) -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in [*there, *(key for key in here if key not in there)]:
            yield from _differences(
                there.get(key), here.get(key), f"{path}.{key}" if path else str(key)
            )
    elif there != here:
        yield f"{path} was {_short(there)}, is now {_short(here)}"


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
