"""Contract under test: a run goes on only as what it began as, and says what differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from study_process import WIDEST, StudyProcess, batch_files


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"problems": 9}, "plan.problems was 10, is now 9"),
        ({"precisions": ["bf16"]}, "plan.precisions was"),
        ({"seed": 5}, "plan.seed was 0, is now 5"),
        ({"decoding": {"max_new_tokens": 7, "top_k": 3}}, "plan.decoding.max_new_tokens was 6"),
    ],
)
def test_other_plan_in_the_same_folder_is_refused_with_the_difference(
    stub_study: StudyProcess, uninterrupted: Path, change: dict[str, object], difference: str
) -> None:
    before = batch_files(uninterrupted)
    stub_study.plan.update(change)
    status, _, stderr = stub_study.run(uninterrupted)
    assert status == 2
    assert difference in stderr
    assert "Use another folder" in stderr
    assert len(stderr.splitlines()) == 1
    assert batch_files(uninterrupted) == before


def test_other_model_files_are_refused(stub_study: StudyProcess, uninterrupted: Path) -> None:
    Path(stub_study.plan["model"], "config.json").write_text('{"changed": true}')
    status, _, stderr = stub_study.run(uninterrupted)
    assert status == 2
    assert "model files.config.json.sha256 was" in stderr


def test_the_same_model_in_another_place_is_the_same_run(
    stub_study: StudyProcess, uninterrupted: Path, tmp_path: Path
) -> None:
    shutil.copytree(stub_study.plan["model"], tmp_path / "moved")
    stub_study.plan["model"] = str(tmp_path / "moved")
    status, result, _ = stub_study.run(uninterrupted)
    assert (status, result["computed"]) == (0, 0)


@pytest.mark.parametrize(
    ("key", "value", "difference"),
    [
        ("versions", {"torch": "1.0"}, "versions.torch was 1.0"),
        ("device", {"cpu_model": "Another CPU"}, "device.cpu_model was Another CPU"),
        ("problems_digest", "0" * 64, "problems was 0000"),
        ("numerics_version", 99, "numerics_version was 99"),
    ],
)
def test_what_the_run_began_with_must_still_hold(
    stub_study: StudyProcess, uninterrupted: Path, key: str, value: object, difference: str
) -> None:
    path = uninterrupted / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest[key] = {**manifest[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(manifest))
    status, _, stderr = stub_study.run(uninterrupted)
    assert status == 2
    assert difference in stderr


def test_worker_that_is_not_as_it_was_stops_the_run(
    stub_study: StudyProcess, tmp_path: Path
) -> None:
    out = tmp_path / "changed"
    stub_study.run(out, STUB_FAULT=f"exit@bf16/{WIDEST}-t1#1")
    before = batch_files(out)
    status, _, stderr = stub_study.run(out, STUB_EXTRA_FACT="another library")
    assert status == 2
    assert "facts.extra was absent, is now another library" in stderr
    assert batch_files(out) == before


def test_training_log_beside_the_model_may_be_written_again(
    stub_study: StudyProcess, uninterrupted: Path
) -> None:
    Path(stub_study.plan["model"], "training_log.json").write_text("[]")
    assert stub_study.run(uninterrupted)[0] == 0
