"""Contract under test: a run over a cluster ends in the records of a run on one machine.

The cluster is one of processes on this machine: a head without cores, and nodes of one core.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.cluster_utils import Cluster
from study_process import (
    HERE,
    SOURCE,
    STUB_BATCHES,
    WIDEST,
    StudyProcess,
    all_answers,
    batch_files,
    wait_for_batches,
)

from layercast.errors import EnvironmentSetupError
from layercast.study import events
from layercast.study.events import BatchFinished
from layercast.study.launchers.node_worker import Ended, NodeWorker
from layercast.study.launchers.ray_cluster import RayLauncher

_SMALL = {"object_store_memory": 80 * 2**20}


@contextmanager
def cluster_of(nodes: int, **environment: str) -> Iterator[Any]:
    """A cluster whose workers see the stub engine and its settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(SOURCE), str(HERE)]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        for name, value in environment.items():
            patch.setenv(name, value)
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, **_SMALL},
        )
        try:
            for _ in range(nodes):
                cluster.add_node(num_cpus=1, **_SMALL)
            cluster.wait_for_nodes()
            yield cluster
        finally:
            cluster.shutdown()


def over(cluster: Any) -> dict[str, str]:
    """The environment of a runner that uses the cluster."""
    return {"STUDY_LAUNCHER": "ray", "RAY_ADDRESS": cluster.address}


def manifest_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def assert_same_answers(folder: Path, expected: Path) -> None:
    found, wanted = all_answers(folder), all_answers(expected)
    assert found.keys() == wanted.keys()
    assert all(found[name].equals(wanted[name]) for name in wanted)
    assert batch_files(folder).keys() == batch_files(expected).keys()


def test_a_run_over_two_nodes_has_the_records_of_a_local_one(
    stub_study: StudyProcess, uninterrupted: Path, tmp_path: Path
) -> None:
    with cluster_of(2) as cluster:
        status, result, stderr = stub_study.run(tmp_path / "run", **over(cluster))
    assert (status, result["complete"], stderr) == (0, True, "")
    assert_same_answers(tmp_path / "run", uninterrupted)
    here, there = manifest_of(uninterrupted), manifest_of(tmp_path / "run")
    assert there["workers"] == here["workers"]
    assert there["events"] == []
    assert not (tmp_path / "run" / "logs").exists() or not list((tmp_path / "run/logs").iterdir())


def test_a_lost_nodes_configurations_are_run_again_on_another(
    stub_study: StudyProcess, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with cluster_of(2, STUB_STEP_SECONDS="0.1") as cluster:
        runner = stub_study.start(out, **over(cluster))
        wait_for_batches(out, 4, runner)
        before = batch_files(out)
        lost = sorted(cluster.worker_nodes, key=str)[0]
        cluster.remove_node(lost, allow_graceful=False)
        stdout, stderr = runner.communicate(timeout=200)
    assert len(before) < STUB_BATCHES - 1
    result = json.loads(stdout.splitlines()[-1])  # Ray tells of the node before it
    assert (runner.returncode, result["complete"], result["failures"]) == (0, True, []), stderr
    assert_same_answers(out, uninterrupted)
    # What was there when the node went down was kept.
    assert {name: batch_files(out)[name] for name in before} == before
    (event,) = manifest_of(out)["events"]
    assert (event["kind"], event["outcome"]) == ("lost", "retried")
    assert "lost with its node" in event["message"]


def test_a_killed_runner_is_resumed_over_the_cluster_or_here(
    stub_study: StudyProcess, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with cluster_of(1, STUB_STEP_SECONDS="0.05") as cluster:
        runner = stub_study.start(out, **over(cluster))
        wait_for_batches(out, 2, runner)
        runner.send_signal(signal.SIGKILL)
        runner.communicate()
        finished = len(batch_files(out))
        assert 2 <= finished < STUB_BATCHES
        status, result, stderr = stub_study.run(out)
    assert (status, result["kept"] >= finished, stderr) == (0, True, "")
    assert_same_answers(out, uninterrupted)


def test_a_crash_on_a_node_is_told_and_tried_again_as_one_here_is(
    stub_study: StudyProcess, uninterrupted: Path, tmp_path: Path
) -> None:
    fault = {"STUB_FAULT": f"abort@bf16/{WIDEST}-t1#1", "STUB_FAULT_ONCE": str(tmp_path / "once")}
    with cluster_of(1, **fault) as cluster:
        status, result, stderr = stub_study.run(
            tmp_path / "run", **over(cluster), STUDY_RETRIES="1"
        )
    assert (status, result["complete"], stderr) == (0, True, "")
    assert_same_answers(tmp_path / "run", uninterrupted)
    (event,) = manifest_of(tmp_path / "run")["events"]
    assert (event["kind"], event["outcome"]) == ("crashed", "retried")
    assert event["message"] == "was ended by SIGABRT"
    (log,) = (tmp_path / "run" / "logs").iterdir()
    assert "stub: terminate called" in log.read_text()


def test_a_worker_that_no_node_can_hold_ends_the_run_with_the_remedy(
    stub_study: StudyProcess, tmp_path: Path
) -> None:
    stub_study.plan["axes"]["threads"] = [2]
    with cluster_of(1) as cluster:
        status, _, stderr = stub_study.run(tmp_path / "run", **over(cluster))
    assert status == 2
    assert "must have 2 cores" in stderr
    assert len(stderr.strip().splitlines()) == 1


def test_the_command_runs_the_bundled_model_over_a_cluster(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(
        'model = "testbed"\ntask = "bundled"\nproblems = 3\nprecisions = ["bf16", "layercast"]\n'
        f'[axes]\ninstruction_sets = ["{WIDEST}"]\nthreads = [1]\nbatch_sizes = [2]\n'
        "[decoding]\nmax_new_tokens = 12\n"
    )

    def run(out: Path, *words: str, **environment: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "layercast", "study", "run", str(plan), "-o", str(out), *words],
            env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    run(tmp_path / "here")
    with cluster_of(2) as cluster:
        run(tmp_path / "there", "--launcher", "ray", "--ray-address", cluster.address)
    assert_same_answers(tmp_path / "there", tmp_path / "here")


def test_without_a_cluster_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(
        EnvironmentSetupError, match=r"running at 127\.0\.0\.1:1, .*ray start --head"
    ):
        RayLauncher("127.0.0.1:1")
    with pytest.raises(EnvironmentSetupError, match=r"running here, .*ray start --head"):
        RayLauncher()


def test_a_node_that_loses_its_files_says_so_and_is_not_waited_for(tmp_path: Path) -> None:
    finished = BatchFinished(config_id="c", index=0, answers=1, tokens=1, failed=0, seconds=1.0)
    killed: list[bool] = []
    process: Any = SimpleNamespace(
        stdout=[events.encode(finished)], wait=lambda: -9, kill=lambda: killed.append(True)
    )
    worker = NodeWorker()
    worker._job = SimpleNamespace(  # type: ignore[assignment]
        folder=tmp_path,
        batches=[SimpleNamespace(config_id="c", index=0)],
        batch_path=lambda batch: tmp_path / "removed",
    )
    worker._read(process)
    (ended,) = worker.poll(1.0)
    assert isinstance(ended, Ended)
    assert "could not be read (No such file" in str(ended.message)
    assert killed
