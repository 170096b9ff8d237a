"""Contract under test: workers share the machine without crowding it, batches follow the plan."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layercast.study.batches import batch_seed, members, ordered_places, plan_batches
from layercast.study.budget import VLLM_CACHE_BYTES, Budget, worker_bytes
from layercast.study.configuration import ENDPOINT, Configuration
from layercast.study.jobs import Job, plan_jobs
from layercast.study.plan import Decoding, EngineSettings, load_plan
from layercast.study.resolution import ResolvedPlan

#: By ``printf '7\\n1\\np%d\\n0' N | sha256sum``, sorted.
FIRST_OF_ORDER_1 = [0, 2, 12, 9, 15]


def job(threads: int, precision: str = "bf16", model: Path = Path("/nowhere")) -> Job:
    return Job(
        folder=Path("/run"),
        model="model",
        model_path=model,
        engine="engine",
        settings=EngineSettings(),
        task="bundled",
        precision=precision,
        configuration=Configuration("avx2" if threads else ENDPOINT, threads, 8),
        decoding=Decoding(max_new_tokens=1),
        seed=0,
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
    vllm = {"settings": EngineSettings(kind="vllm")}
    in_vllm = job(1, model=tmp_path).model_copy(update=vllm)
    assert worker_bytes(in_vllm) == one + VLLM_CACHE_BYTES
    budget = Budget(8, 2 * one + 10)
    assert budget.allows([job(1, model=tmp_path)], job(1, model=tmp_path))
    assert not budget.allows([job(1, model=tmp_path)], job(1, "fp32", tmp_path))
    # Alone it runs whatever the estimate says.
    assert Budget(8, 1).allows([], job(1, model=tmp_path))


def test_ranks_of_one_model_count_as_the_processes_they_are() -> None:
    one = job(1)
    four = one.model_copy(update={"configuration": Configuration("avx2", 1, 8, 4)})
    budget = Budget(4, 2**50)
    assert budget.allows([], four)
    assert not budget.allows([four], one)
    assert not budget.allows([one], four)
    assert Budget(5, 2**50).allows([one], four)
    assert worker_bytes(four) == 4 * worker_bytes(one)


def test_requests_to_an_endpoint_come_from_one_worker_at_a_time() -> None:
    budget = Budget(8, 2**50)
    assert budget.allows([], job(0))
    assert not budget.allows([job(0)], job(0))
    assert not budget.allows([job(0)], job(1))


@given(st.integers(1, 60), st.integers(1, 70), st.integers(1, 4), st.integers(0, 3))
def test_batches_hold_every_answer_once_in_every_order(
    problems: int, size: int, samples: int, order: int
) -> None:
    names = [f"p{number}" for number in range(problems)]
    places = ordered_places(names, samples=samples, batch_order=order, seed=7)
    configuration = Configuration("avx2", 1, size, batch_order=order)
    batches = list(plan_batches(configuration, len(places)))
    covered = [place for batch in batches for place in members(batch, places)]
    assert covered == places
    assert {(p.problem, p.sample) for p in places} == {
        (p, s) for p in range(problems) for s in range(samples)
    }
    assert len(places) == problems * samples
    assert all(len(members(batch, places)) == size for batch in batches[:-1])


def test_orders_are_the_tasks_or_seeded_shuffles() -> None:
    names = [f"p{number}" for number in range(20)]

    def order(number: int, seed: int = 7) -> list[int]:
        places = ordered_places(names, samples=1, batch_order=number, seed=seed)
        return [place.problem for place in places]

    assert order(0) == list(range(20))
    assert order(1) == order(1)
    assert len({tuple(order(number)) for number in range(4)}) == 4
    assert order(1) != order(1, seed=8)
    # The same shuffle on every machine.
    assert order(1)[:5] == FIRST_OF_ORDER_1


def test_batch_seeds_differ_and_depend_on_seed_and_index_alone() -> None:
    seeds = {batch_seed(seed, index) for seed in range(5) for index in range(50)}
    assert len(seeds) == 250
    assert all(0 <= seed < 2**63 for seed in seeds)


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
    assert [job.configuration.threads for job in jobs] == [1] * 8 + [2] * 8


def test_what_is_fixed_at_start_has_a_worker_of_its_own() -> None:
    plan = load_plan()
    configurations = (
        Configuration("avx2", 1, 8),
        Configuration("avx2", 1, 8, batch_order=1),
        Configuration("avx2", 1, 8, prefill_chunk=16),
        Configuration("avx2", 1, 8, prefix_cache="warm"),
        Configuration("avx2", 1, 8, attention="eager"),
        Configuration("avx2", 1, 8, kv_dtype="bf16"),
        Configuration("avx2", 1, 8, tensor_parallel=2),
        Configuration("avx2", 1, 8, repeat=2),
    )
    resolved = ResolvedPlan(plan, Path("/model"), configurations, 2, ())
    jobs = plan_jobs(resolved, 8, folder=Path("/run"), engine="engine", task="bundled")
    names = [job.name for job in jobs if job.precision == "bf16"]
    assert names == [
        "bf16/avx2-t1",
        "bf16/avx2-t1-eager",
        "bf16/avx2-t1-kvbf16",
        "bf16/avx2-t1-tp2",
        "bf16/avx2-t1-run2",
    ]
    assert len(jobs[0].batches) == 4
