from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from handwritten_records import make_blank_run
from study_process import StudyProcess, make_stub_plan


@pytest.fixture
def stub_plan(tmp_path: Path) -> dict[str, Any]:
    return make_stub_plan(tmp_path / "model")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that nothing interrupted; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("finished")
    status, result, stderr = StudyProcess(make_stub_plan(folder / "model")).run(folder / "run")
    assert (status, result["complete"], stderr) == (0, True, "")
    return folder / "run"


@pytest.fixture
def uninterrupted(finished_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the run that nothing interrupted."""
    return Path(shutil.copytree(finished_run, tmp_path / "uninterrupted"))


@pytest.fixture
def blank_run(finished_run: Path, tmp_path: Path) -> Path:
    """Return a run folder of two problems and two configurations, and no records yet."""
    return make_blank_run(finished_run, tmp_path / "run")


@pytest.fixture
def stub_study(stub_plan: dict[str, Any]) -> Iterator[StudyProcess]:
    study = StudyProcess(stub_plan)
    yield study
    for process in study.processes:
        if process.poll() is None:
            process.kill()
        process.communicate()
