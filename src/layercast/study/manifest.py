"""The manifest: what a run folder holds, what it was made with, and whether it may be resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from layercast.errors import RecordError
from layercast.study import provenance
from layercast.study.atomic import write_atomically
from layercast.study.model_files import FileDigest
from layercast.study.plan import Plan

#: Version of the run folder's layout, of the manifest and of the records' columns.
SCHEMA_VERSION = 2

# How long to wait for a server's answer, and with which key, changes none.
_IMPATIENCE = {"timeout_seconds", "retries", "max_wait_seconds", "api_key_variable"}

#: How many differences an error names; it counts the rest.
_NAMED = 4

# Versions that may change an answer. The others are recorded only.
_DECISIVE_VERSIONS = ("layercast", "torch", "transformers", "tokenizers")


class Start(BaseModel):
    """One start of the run: the first, and each time it was resumed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: str
    arguments: list[str]
    commit: str | None
    dirty: bool | None


class RecordedPlan(BaseModel):
    """Contents of ``plan.json``: the plan as `layercast.study.resolution` fitted it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan: Plan
    model_path: str | None
    configurations: list[str] = Field(min_length=1)
    cores: int
    notes: list[str]


class WorkerState(BaseModel):
    """What a worker was started with, and what its engine reported of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    environment: dict[str, str]
    facts: dict[str, Any]


class RunEvent(BaseModel):
    """Something that went wrong in a run, and what came of it.

    `config_id` is None where no batch was in hand. A configuration that was ``given up`` has no
    answers beyond those made before; one that was ``retried`` may have them all. A worker is
    ``lost`` with the machine of a cluster that it ran on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: str
    worker: str
    config_id: str | None
    batch_index: int | None
    kind: Literal["out_of_memory", "crashed", "failed", "lost"]
    message: str
    outcome: Literal["retried", "given up"]


class Manifest(BaseModel):
    """Contents of ``manifest.json``.

    `resolved` is the plan as fitted to the machine (also in ``plan.json``); `workers` is keyed
    by ``<precision>/<instruction set>-t<threads>`` and what else is fixed when a worker starts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    numerics_version: int
    plan_digest: str
    resolved: RecordedPlan
    problems_digest: str
    model_name: str
    model_files: dict[str, FileDigest]
    versions: dict[str, str]
    device: dict[str, Any]
    starts: list[Start] = Field(min_length=1)
    workers: dict[str, WorkerState] = {}
    events: list[RunEvent] = []

    @property
    def model_label(self) -> str:
        """The model's name without the folders it lies in, which are nobody else's business."""
        name = self.model_name
        if name.startswith(("/", ".", "~")) or name.count("/") > 1:
            return Path(name).name or name
        return name

    def identity(self) -> dict[str, Any]:
        """Return what must be the same for a run to be resumed."""
        return {
            "schema_version": self.schema_version,
            "numerics_version": self.numerics_version,
            "plan": self._decisive_plan(),
            "configurations": self.resolved.configurations,
            "problems": self.problems_digest,
            "model files": {name: file.model_dump() for name, file in self.model_files.items()},
            "versions": {name: self.versions.get(name) for name in _DECISIVE_VERSIONS},
            "device": {
                name: self.device.get(name) for name in ("cpu_model", "architecture", "cpu_flags")
            },
        }

    def _decisive_plan(self) -> dict[str, Any]:
        """The plan without what changes no answer: where model files lie, how patient one is."""
        plan = self.resolved.plan
        left_out: dict[str, Any] = {"engine": _IMPATIENCE}
        if not plan.engine.remote:
            left_out["model"] = True  # its files' digests tell which it is
        return plan.model_dump(mode="json", exclude=left_out)

    def with_start(self, start: Start) -> Manifest:
        """Return a copy with one more start."""
        return self.model_copy(update={"starts": [*self.starts, start]})

    def with_event(self, event: RunEvent) -> Manifest:
        """Return a copy with one more event."""
        return self.model_copy(update={"events": [*self.events, event]})

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
                f"{first_differences(before.model_dump(), state.model_dump())}. "
                "Start the study into another folder."
            )
        return self.model_copy(update={"workers": {**self.workers, name: state}})


def now() -> str:
    """Return the time, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def this_start() -> Start:
    """Return the start that is happening now."""
    return Start(
        time=now(),
        arguments=provenance.command_line(),
        **provenance.source_state(),
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` and ``plan.json``; each is complete or absent."""
    write_json(folder / "plan.json", manifest.resolved.model_dump(mode="json"))
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
    except (OSError, ValueError, AttributeError) as error:
        raise RecordError(
            f"read_manifest: `{path}` must be a run's manifest, got {_explain(error)}. "
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
            f"{first_differences(recorded.identity(), now.identity())}. "
            "Use another folder, or start with what the run began with to resume it."
        )


def digest_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value, keys sorted."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is complete or absent."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def _explain(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return f"`{place}`: {first['msg'][:1].lower()}{first['msg'][1:]}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "a file that is not a JSON object"


def first_differences(there: Any, here: Any) -> str:
    """Say in one line in which keys two trees of plain values differ; empty if in none."""
    found = list(_differences(there, here, ""))
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return "; ".join(found[:_NAMED]) + more


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
