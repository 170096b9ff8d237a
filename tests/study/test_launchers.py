"""Contract under test: which launchers there are, and what a node of a cluster refuses."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from study_process import make_stub_plan

from layercast.errors import EnvironmentSetupError, UnsupportedError, ValueRangeError
from layercast.study.configuration import ENDPOINT
from layercast.study.jobs import Job, plan_jobs
from layercast.study.launchers import check_launcher, open_launcher
from layercast.study.launchers.node_worker import NodeWorker, identity
from layercast.study.plan import parse_plan
from layercast.study.resolution import resolve


@pytest.fixture
def job(tmp_path: Path) -> Job:
    plan = parse_plan(make_stub_plan(tmp_path / "model"))
    return plan_jobs(
        resolve(plan), 10, folder=tmp_path, engine="stub_engine", task="stub_engine:StubTask"
    )[0]


def test_names_are_checked_before_a_run_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    check_launcher("local", None)
    with pytest.raises(ValueRangeError, match="must be local or ray, got 'slurm'"):
        check_launcher("slurm", None)
    with pytest.raises(ValueRangeError, match="must come with --launcher ray"):
        check_launcher("local", "10.0.0.1:6379")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentSetupError, match=r"layercast\[ray\]"):
        check_launcher("ray", None)


def test_endpoints_are_not_asked_from_a_cluster(job: Job) -> None:
    configuration = replace(job.configuration, instruction_set=ENDPOINT)
    remote = job.model_copy(update={"configuration": configuration})
    with (
        pytest.raises(UnsupportedError, match="must be local with an endpoint"),
        open_launcher("ray", [remote], lock=0, address=None),
    ):
        pass


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("versions", {"torch": "0.1"}),
        ("device", {"cpu_model": "another"}),
        ("model files", {"config.json": "another digest"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_node_of_another_kind_is_refused_by_what_differs(
    job: Job, part: str, change: dict[str, Any]
) -> None:
    expected = {**identity(job.model_path)}
    expected[part] = {**expected[part], **change}
    worker = NodeWorker()
    with pytest.raises(EnvironmentSetupError, match=f"{part}.*{next(iter(change))}"):
        worker.begin(job.model_dump_json(), {}, expected)
    worker.stop()
