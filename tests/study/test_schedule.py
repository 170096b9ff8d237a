"""Contract under test: workers share the machine without crowding it, batches follow the plan."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercast.study.budget import Budget, worker_bytes
from layercast.study.jobs import Job, plan_batches, plan_jobs
from layercast.study.plan import load_plan
from layercast.study.resolution import Configuration, ResolvedPlan


def job(threads: int, precision: str = "bf16", model: Path = Path("/nowhere")) -> Job:
    return Job(
        folder=Path("/run"),
        model_path=model,
        engine="engine",
        task="bundled",
        precision=precision,
        instruction_set="avx2",
        threads=threads,
        max_new_tokens=1,
        top_k=2,
        batches=(),
    )


@pytest.mark.parametrize(
    ("cores", "running", "threads", "allowed"),
    [
        (2, [], 1, True),
        (2, [1], 1, True),
        (2, [1, 1], 1, False),
        (2, [1], 2, True),
        (2, [1, 2], 1, False),
        (2, [], 2, True),
        (2, [2], 2, True),
        (2, [2, 2], 1, False),
        (1, [], 2, True),  # more threads than cores: alone
        (1, [2], 1, False),
        (4, [2, 2, 2], 2, True),
        (4, [4], 4, True),
        (4, [4], 5, True),  # counts as the four cores there are
        (4, [4, 1], 4, False),
    ],
)
def test_workers_of_several_threads_count_as_half_of_them(
    cores: int, running: list[int], threads: int, allowed: bool
) -> None:
    budget = Budget(cores, 2**50)
    assert budget.allows([job(n) for n in running], job(threads)) is allowed


def test_workers_that_would_not_fit_into_memory_wait(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    one = worker_bytes(job(1, model=tmp_path))
    assert worker_bytes(job(1, "fp32", tmp_path)) == one + 1000
    budget = Budget(8, 2 * one + 10)
    assert budget.allows([job(1, model=tmp_path)], job(1, model=tmp_path))
    assert not budget.allows([job(1, model=tmp_path)], job(1, "fp32", tmp_path))
    # Alone it runs whatever the estimate says.
    assert Budget(8, 1).allows([], job(1, model=tmp_path))


@given(st.integers(1, 200), st.integers(1, 70))
def test_batches_cover_the_problems_in_order_once(problems: int, size: int) -> None:
    batches = list(plan_batches(problems, size))
    covered = [
        problem
        for batch in batches
        for problem in range(batch.index * size, batch.index * size + batch.answers)
    ]
    assert covered == list(range(problems))
    assert all(batch.answers == size for batch in batches[:-1])


def test_a_worker_serves_all_batch_sizes_of_its_precision_set_and_threads() -> None:
    plan = load_plan()
    configurations = tuple(
        Configuration(name, threads, size)
        for name in ("avx2", "avx512")
        for threads in plan.axes.threads
        for size in plan.axes.batch_sizes
    )
    resolved = ResolvedPlan(plan, Path("/model"), configurations, 2, ())
    jobs = plan_jobs(resolved, 64, folder=Path("/run"), engine="engine", task="bundled")
    # 4 precisions x 2 instruction sets x 2 thread counts, each with 8 + 4 + 2 batches.
    assert len(jobs) == len({job.name for job in jobs}) == 16
    assert {len(job.batches) for job in jobs} == {14}
    paths = {job.batch_path(batch) for job in jobs for batch in job.batches}
    assert len(paths) == 16 * 14
    assert {path.parent.name for path in paths} == {c.id for c in configurations}
    # Those that run side by side come first.
    assert [job.threads for job in jobs] == [1] * 8 + [2] * 8
