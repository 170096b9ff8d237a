"""Runs a study: opens the run folder, starts workers, keeps what they finish."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from layercast.errors import RecordError
from layercast.grading.sandbox import open_sandbox
from layercast.numerics import NUMERICS_VERSION
from layercast.study import provenance
from layercast.study.atomic import is_partial
from layercast.study.engines import load_engine
from layercast.study.jobs import Job, plan_jobs, unfinished
from layercast.study.launchers import check_launcher, open_launcher
from layercast.study.lock import lock_folder
from layercast.study.manifest import (
    Manifest,
    RecordedPlan,
    digest_json,
    read_manifest,
    require_same_run,
    this_start,
    write_manifest,
)
from layercast.study.model_files import digest_files
from layercast.study.plan import Plan
from layercast.study.pool import Launch, WorkerFailure, WorkerPool
from layercast.study.progress import ProgressListener, Silent
from layercast.study.prompts import find_task, problem_rows, problems_digest
from layercast.study.records import (
    BATCH_FILE_PATTERN,
    PROBLEMS_FILE,
    read_problems,
    write_problems,
)
from layercast.study.resolution import ResolvedPlan, resolve
from layercast.study.vocabulary import FILE_NAME as VOCABULARY_FILE
from layercast.study.vocabulary import write_vocabulary
from layercast.tasks import Problem, Task

_FILE_NAMES = ("manifest.json", "plan.json", PROBLEMS_FILE, VOCABULARY_FILE)
_FILES = "|".join(map(re.escape, _FILE_NAMES))
_RUN_FOLDER_NAMES = {".lock", *_FILE_NAMES, "records", "logs"}


@dataclass(frozen=True)
class RunResult:
    """How a start of a run ended.

    `complete` says that every batch of the plan is on disk; `failures` are the workers that gave
    up; `notes` are what a reader of the results must know.
    """

    folder: Path
    complete: bool
    batches_computed: int
    batches_kept: int
    seconds: float
    failures: tuple[WorkerFailure, ...]
    notes: tuple[str, ...]


def run_study(
    plan: Plan,
    out: Path,
    *,
    progress: ProgressListener | None = None,
    launch: Launch | None = None,
    retries: int = 1,
    retry_failed: bool = False,
    code_isolation: str | None = None,
    launcher: str = "local",
    ray_address: str | None = None,
) -> RunResult:
    """Run a plan into a folder, or go on with what an earlier start left there.

    Finished batches are kept, an unfinished one is run again whole, so a run that was killed at
    any moment ends in the same records as one that was not, but for timings. Call it from the
    main thread: workers die with the thread that started them.

    Args:
        plan: From `load_plan`.
        out: The run folder; made if it is not there.
        progress: Told how the run goes; nothing is shown if None.
        launch: What makes the answers, for tests of the runner.
        retries: How often a batch whose worker crashed, or the loading of a model, is tried again
            before its configuration is given up.
        retry_failed: Whether to make batches again in which an endpoint's answer never arrived.
        code_isolation: How programs that a model wrote are run to grade them (see
            `layercast.grading.sandbox.open_sandbox`); None: they are not, and such tasks refused.
        launcher: "local", processes of this machine, or "ray", nodes of a Ray cluster; the records
            are the same but for timings.
        ray_address: Of the cluster; None: `RAY_ADDRESS`, or the one that runs on this machine.

    Returns:
        The result; what was given up is in it, not raised, and everything else finishes.

    Raises:
        PlanError: the plan cannot be run on this machine.
        RecordError: the folder is in use, cannot be written, or holds something else than this
            run; it says what differs and the remedy.
        KeyboardInterrupt: Ctrl-C, after every worker was ended and no half-written file is left.
    """
    began = time.monotonic()
    check_launcher(launcher, ray_address)
    launch = launch or Launch()
    progress = progress or Silent()
    resolved = resolve(plan)
    if code_isolation is not None:
        # Which it comes to is found out once, here, so that every worker has the same.
        code_isolation = open_sandbox(code_isolation).isolation
    resolved = _sandboxed(resolved, code_isolation)
    folder = out.absolute()
    _require_run_folder(folder)
    with lock_folder(folder) as lock:
        _remove_leftovers(folder)
        task_name, engine = launch.task or plan.task, launch.engine or plan.engine.module
        task = find_task(task_name, plan.task_options.options(code_isolation))
        problems = task.problems(plan.problems)
        manifest, notes = _open_run(folder, resolved, task, problems, engine)
        for note in notes:
            progress.note(note)
        jobs = plan_jobs(
            resolved,
            len(problems),
            folder=folder,
            engine=engine,
            task=task_name,
            code_isolation=code_isolation,
        )
        started = [unfinished(job, retry_failed=retry_failed) for job in jobs]
        pending = [job for job in started if job.batches]
        kept = _batches(jobs) - _batches(pending)
        failures: tuple[WorkerFailure, ...] = ()
        if pending:
            _announce(progress, jobs, pending)
            with open_launcher(launcher, pending, lock=lock, address=ray_address) as opened:
                pool = WorkerPool(pending, manifest, opened, progress, retries)
                failures = _compute(pool, progress, folder)
        left = _batches([unfinished(job) for job in pending])
    return RunResult(
        folder=out,
        complete=left == 0,
        batches_computed=_batches(pending) - left,
        batches_kept=kept,
        seconds=time.monotonic() - began,
        failures=failures,
        notes=tuple(notes),
    )


def _announce(progress: ProgressListener, jobs: list[Job], pending: list[Job]) -> None:
    progress.start(
        batches=_batches(jobs),
        answers=_answers(jobs),
        batches_kept=_batches(jobs) - _batches(pending),
        answers_kept=_answers(jobs) - _answers(pending),
    )


def _compute(
    pool: WorkerPool, progress: ProgressListener, folder: Path
) -> tuple[WorkerFailure, ...]:
    try:
        return pool.run()
    finally:
        progress.stop()
        _remove_leftovers(folder)


def _sandboxed(resolved: ResolvedPlan, code_isolation: str | None) -> ResolvedPlan:
    if code_isolation is None:
        return resolved
    note = f"A task may run programs that the model wrote; isolation: {code_isolation}."
    return replace(resolved, notes=(*resolved.notes, note))


def _require_run_folder(folder: Path) -> None:
    """Refuse a folder that is not a run's or a new one, before anything in it is touched."""
    try:
        names = {child.name for child in folder.iterdir()}
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise RecordError(
            f"study run: `{folder}` must be a folder, got a file. Name another with --out."
        ) from error
    except OSError as error:
        raise RecordError(
            f"study run: `{folder}` must be a folder that can be read, got {error.strerror}. "
            "Name another with --out, or mend its permissions."
        ) from error
    if "manifest.json" in names:
        read_manifest(folder)
        return
    foreign = sorted(n for n in names - _RUN_FOLDER_NAMES if not is_partial(n, _FILES))
    if foreign:
        raise RecordError(
            f"study run: `{folder}` must be empty or hold a run, got other files "
            f"({', '.join(foreign[:3])}). Name another folder with --out."
        )
    if "records" in names:
        raise RecordError(
            f"study run: `{folder}` must hold its manifest, got records without manifest.json. "
            "Restore it, or name another folder with --out."
        )


def _remove_leftovers(folder: Path) -> None:
    """Delete what interrupted writes of a run left; no worker may be writing there."""
    leftovers = [child for child in folder.glob(".*") if is_partial(child.name, _FILES)]
    leftovers += [
        child
        for child in (folder / "records").glob("*/*/.*")
        if is_partial(child.name, BATCH_FILE_PATTERN)
    ]
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)


def _open_run(
    folder: Path, resolved: ResolvedPlan, task: Task, problems: Sequence[Problem], engine: str
) -> tuple[Manifest, list[str]]:
    """Make a new run's files, or check that the run in the folder is this one."""
    start = this_start()
    now = Manifest(
        numerics_version=NUMERICS_VERSION,
        plan_digest=digest_json(resolved.plan.model_dump(mode="json")),
        resolved=RecordedPlan.model_validate(resolved.as_json()),
        problems_digest=problems_digest(problems),
        model_name=resolved.plan.model,
        model_files={} if resolved.model_path is None else digest_files(resolved.model_path),
        versions=provenance.versions(),
        device=provenance.device(),
        starts=[start],
    )
    notes = list(resolved.notes)
    if len(problems) < resolved.plan.problems:
        notes.append(
            f"The task {task.name} has {len(problems)} problems; the plan asks for "
            f"{resolved.plan.problems}."
        )
    if not (folder / "manifest.json").exists():
        rows = problem_rows(
            problems,
            task,
            engine=engine,
            model_path=resolved.model_path,
            settings=resolved.plan.engine,
        )
        write_problems(folder, rows)
        write_vocabulary(folder, load_engine(engine).pieces(resolved.model_path))
        # Last, because a folder with a manifest is a run with all it needs.
        write_manifest(folder, now)
        return now, notes
    recorded = read_manifest(folder)
    require_same_run(recorded, now, folder)
    read_problems(folder)  # without them no worker could start
    if (start.commit, start.dirty) != (recorded.starts[-1].commit, recorded.starts[-1].dirty):
        notes.append("The code's commit is not the one this run was started with; see `starts`.")
    return recorded.with_start(start), notes


def _batches(jobs: list[Job]) -> int:
    return sum(len(job.batches) for job in jobs)


def _answers(jobs: list[Job]) -> int:
    return sum(batch.answers for job in jobs for batch in job.batches)
