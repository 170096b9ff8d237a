"""Contract under test: a folder that is not a run's is refused, and no file in it is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_process import StudyProcess


def test_folder_with_other_files_is_refused_and_left_alone(
    stub_study: StudyProcess, tmp_path: Path
) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.tex").write_text("...")
    status, _, stderr = stub_study.run(out)
    assert status == 2
    assert "must be empty or hold a run, got other files (chapter.tex)" in stderr
    assert [child.name for child in out.iterdir()] == ["chapter.tex"]


@pytest.mark.parametrize("manifest", ["{}", '{"schema_version": 2}', "not JSON"])
def test_folder_with_a_manifest_of_something_else_is_left_alone(
    stub_study: StudyProcess, tmp_path: Path, manifest: str
) -> None:
    out = tmp_path / "extension"
    theirs = {"manifest.json": manifest, "sub/.download.partial": "", ".plan.json.3.partial": ""}
    for name, text in theirs.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    status, _, stderr = stub_study.run(out)
    assert status == 2
    assert "manifest.json" in stderr
    assert len(stderr.splitlines()) == 1
    left = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert left == set(theirs)


def test_only_the_runs_own_leftovers_are_removed(
    stub_study: StudyProcess, uninterrupted: Path
) -> None:
    batches = next((uninterrupted / "records" / "bf16").iterdir())
    ours = [
        uninterrupted / ".manifest.json.77.partial",
        uninterrupted / ".problems.parquet.77.partial",
        batches / ".batch-00002.parquet.77.partial",
    ]
    theirs = [
        uninterrupted / ".thesis.tex.77.partial",
        uninterrupted / "notes.partial",
        batches / ".download.partial",
    ]
    for path in [*ours, *theirs]:
        path.write_text("")
    assert stub_study.run(uninterrupted)[0] == 0
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in theirs)


def test_run_without_its_problems_is_refused_with_a_way_out(
    stub_study: StudyProcess, uninterrupted: Path
) -> None:
    (uninterrupted / "problems.parquet").unlink()
    status, _, stderr = stub_study.run(uninterrupted)
    assert status == 2
    assert "run the study into a new folder" in stderr
    assert "Delete it" not in stderr


def test_records_without_their_manifest_are_refused(
    stub_study: StudyProcess, uninterrupted: Path
) -> None:
    (uninterrupted / "manifest.json").unlink()
    status, _, stderr = stub_study.run(uninterrupted)
    assert status == 2
    assert "records without manifest.json" in stderr


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_file_as_run_folder_is_refused(
    stub_study: StudyProcess, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("")
    status, _, stderr = stub_study.run(tmp_path / place)
    assert status == 2
    assert "must be a folder, got a file" in stderr


def test_folder_that_cannot_be_written_is_one_clear_line(stub_study: StudyProcess) -> None:
    # /proc takes no new folders, whoever asks.
    status, _, stderr = stub_study.run(Path("/proc/study"))
    assert status == 2
    assert "must be a folder that can be written" in stderr
    assert len(stderr.splitlines()) == 1
