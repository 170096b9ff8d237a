"""Contract under test: a run has every batch of its plan once, and tells what ran on what."""

from __future__ import annotations

import json
from pathlib import Path

from study_process import STUB_BATCHES, WIDEST, StudyProcess, all_answers, batch_files

from layercast.study import records
from layercast.study.instruction_sets import available


def test_run_writes_every_batch_of_the_plan_once(
    uninterrupted: Path,
) -> None:
    assert len(batch_files(uninterrupted)) == STUB_BATCHES
    for table in all_answers(uninterrupted).values():
        answers = list(
            zip(table["problem_id"].to_pylist(), table["config_id"].to_pylist(), strict=True)
        )
        assert len(answers) == len(set(answers)) == 10 * 2
    assert (uninterrupted / "manifest.json").exists()
    assert not list(uninterrupted.rglob("*.partial"))


def test_batches_hold_the_problems_in_the_plans_order(uninterrupted: Path) -> None:
    table = records.read_answers(
        uninterrupted, precision="bf16", config_id=f"{WIDEST}-t1-b4"
    ).to_pylist()
    assert [row["problem_id"] for row in table] == [f"p{i:03d}" for i in range(10)]
    assert [row["batch_index"] for row in table] == [0] * 4 + [1] * 4 + [2] * 2
    assert [row["batch_position"] for row in table] == [0, 1, 2, 3] * 2 + [0, 1]
    assert {row["prompt_digest"] for row in table} == set(
        records.read_problems(uninterrupted)["prompt_digest"].to_pylist()
    )


def test_second_start_of_a_finished_run_computes_nothing(
    stub_study: StudyProcess, uninterrupted: Path
) -> None:
    before = batch_files(uninterrupted)
    manifest = (uninterrupted / "manifest.json").read_bytes()
    # Any worker that is started would fail at its first batch, and leave a log.
    status, result, _ = stub_study.run(uninterrupted, STUB_FAULT=f"exit@bf16/{WIDEST}-t1#0")
    assert (status, result["computed"], result["kept"]) == (0, 0, STUB_BATCHES)
    assert batch_files(uninterrupted) == before
    assert (uninterrupted / "manifest.json").read_bytes() == manifest


def test_sampling_answers_every_sample_and_records_its_seed(
    stub_study: StudyProcess, tmp_path: Path
) -> None:
    stub_study.plan["decoding"].update({"method": "sampling", "samples": 3})
    stub_study.plan["seed"] = 5
    assert stub_study.run(tmp_path / "run")[0] == 0
    for table in all_answers(tmp_path / "run").values():
        rows = table.to_pylist()
        answers = [(row["config_id"], row["problem_id"], row["sample_index"]) for row in rows]
        assert len(answers) == len(set(answers)) == 2 * 10 * 3
        assert {row["sample_index"] for row in rows} == {0, 1, 2}
        texts = {(row["config_id"], row["problem_id"], row["text"]) for row in rows}
        assert len(texts) > 2 * 10


def test_shuffled_batches_hold_the_same_answers_beside_others(
    stub_study: StudyProcess, tmp_path: Path
) -> None:
    stub_study.plan["axes"]["batch_orders"] = [0, 1]
    stub_study.plan["precisions"] = ["layercast"]
    assert stub_study.run(tmp_path / "run")[0] == 0
    by_order: dict[str, list[tuple[str, str]]] = {}
    for suffix in ("", "-order1"):
        table = records.read_answers(
            tmp_path / "run", precision="layercast", config_id=f"{WIDEST}-t1-b4{suffix}"
        )
        by_order[suffix] = [(r["problem_id"], r["text"]) for r in table.to_pylist()]
    assert by_order[""] != by_order["-order1"]
    assert sorted(by_order[""]) == sorted(by_order["-order1"])


def test_manifest_tells_what_ran_on_what(stub_study: StudyProcess, uninterrupted: Path) -> None:
    manifest = json.loads((uninterrupted / "manifest.json").read_text())
    assert manifest["schema_version"] == 2
    assert manifest["versions"]["torch"]
    assert manifest["device"]["cpu_model"]
    assert set(manifest["model_files"]["config.json"]) == {"bytes", "sha256"}
    assert manifest["resolved"]["plan"]["problems"] == 10
    assert len(manifest["starts"]) == 1
    assert {"time", "arguments", "commit", "dirty"} == set(manifest["starts"][0])
    worker = manifest["workers"][f"layercast/{WIDEST}-t1"]
    assert worker["environment"]["OMP_NUM_THREADS"] == "1"
    assert worker["facts"]["omp_threads"] == "1"
    assert json.loads((uninterrupted / "plan.json").read_text()) == manifest["resolved"]


def test_each_start_is_in_the_manifest(stub_study: StudyProcess, tmp_path: Path) -> None:
    out = tmp_path / "twice"
    stub_study.run(out, STUB_FAULT=f"exit@bf16/{WIDEST}-t1#0")
    stub_study.run(out)
    assert len(json.loads((out / "manifest.json").read_text())["starts"]) == 2


def test_worker_starts_in_the_environment_of_its_instruction_set(
    stub_study: StudyProcess, tmp_path: Path
) -> None:
    stub_study.plan["axes"]["instruction_sets"] = available()
    out = tmp_path / "sets"
    stub_study.run(out, ATEN_CPU_CAPABILITY="default")
    workers = json.loads((out / "manifest.json").read_text())["workers"]
    for name in available():
        expected = "avx2" if name == "avx2" else None
        assert workers[f"bf16/{name}-t1"]["facts"]["aten"] == expected
