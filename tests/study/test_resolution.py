"""Contract under test: a plan comes to what this CPU can do, and says where it falls short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layercast.errors import PlanError
from layercast.study import instruction_sets, resolution
from layercast.study.plan import Plan, load_plan
from layercast.study.resolution import Configuration, resolve

AVX2_FLAGS = {"avx2", "fma", "f16c"}
AVX512_FLAGS = AVX2_FLAGS | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "config.json").write_text("{}")
    return load_plan().model_copy(update={"model": str(tmp_path)})


def on_cpu(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(resolution.instruction_sets, "available", lambda: list(names))


def test_bundled_plan_has_twelve_configurations_with_avx512(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu(monkeypatch, "avx2", "avx512")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    resolved = resolve(plan)
    assert len(resolved.configurations) == 12
    assert len({configuration.id for configuration in resolved.configurations}) == 12
    assert resolved.notes == ()


@pytest.mark.parametrize("only", ["avx2", "neon"])
def test_cpu_with_one_instruction_set_runs_fewer_and_says_so(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, only: str
) -> None:
    on_cpu(monkeypatch, only)
    resolved = resolve(plan)
    assert len(resolved.configurations) == 6
    assert any(f"only {only}: 6 configurations" in note for note in resolved.notes)


def test_cpu_without_any_of_the_plans_instruction_sets_is_refused(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu(monkeypatch)
    with pytest.raises(PlanError, match=r"axes\.instruction_sets"):
        resolve(plan)


def test_fewer_cores_than_threads_is_said(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu(monkeypatch, "avx2", "avx512")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert any("1 core; the configurations with 2 threads" in n for n in resolve(plan).notes)


@pytest.mark.parametrize(
    ("flags", "machine", "names"),
    [
        (AVX512_FLAGS, "x86_64", ["avx2", "avx512"]),
        (AVX2_FLAGS, "x86_64", ["avx2"]),
        # AVX-512F alone (Xeon Phi) is not what kernels and libraries mean by it.
        (AVX2_FLAGS | {"avx512f"}, "x86_64", ["avx2"]),
        ({"sse2"}, "x86_64", []),
        ({"asimd"}, "aarch64", ["neon"]),
    ],
)
def test_instruction_sets_follow_from_the_flags(
    flags: set[str], machine: str, names: list[str]
) -> None:
    assert instruction_sets.available(flags, machine) == names


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/nowhere/model", "no such folder"),
        ("./nowhere", "no such folder"),
        ("a/b/c", "no such folder"),
        ("{empty}", "no config.json"),
    ],
)
def test_missing_model_is_one_line(plan: Plan, tmp_path: Path, model: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    model = model.replace("{empty}", str(tmp_path / "empty"))
    with pytest.raises(PlanError, match=message) as caught:
        resolve(plan.model_copy(update={"model": model}))
    assert len(str(caught.value).splitlines()) == 1


def test_unknown_task_is_one_line(plan: Plan) -> None:
    with pytest.raises(PlanError, match="must be one of bundled, got 'bundeld'"):
        resolve(plan.model_copy(update={"task": "bundeld"}))


def test_configuration_name_round_trips() -> None:
    configuration = Configuration("avx512", 2, 16)
    assert configuration.id == "avx512-t2-b16"
    assert Configuration.parse(configuration.id) == configuration


def test_worker_environment_drops_what_a_caller_set() -> None:
    caller = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_DEFAULT_FPMATH_MODE": "BF16", "HOME": "/h"}
    widest = instruction_sets.worker_environment("avx512", 2, caller)
    assert "ATEN_CPU_CAPABILITY" not in widest
    assert "ONEDNN_DEFAULT_FPMATH_MODE" not in widest
    assert widest["HOME"] == "/h"
    assert widest["LAYERCAST_ISA"] == "avx512"
    assert widest["OMP_NUM_THREADS"] == "2"


PROBE = """
import hashlib, torch
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(1)
digests = [torch.backends.cpu.get_cpu_capability()]
for dtype in (torch.float32, torch.bfloat16):
    x = torch.randn(64, 1024, generator=generator).to(dtype)
    w = torch.randn(704, 1024, generator=generator).to(dtype)
    y = torch.nn.functional.linear(x, w).float().numpy()
    digests.append(hashlib.sha256(y.tobytes()).hexdigest()[:8])
print(*digests)
"""


@pytest.mark.skipif(
    instruction_sets.available()[:2] != ["avx2", "avx512"], reason="needs a CPU with AVX-512"
)
def test_each_instruction_set_gives_stock_torch_other_arithmetic() -> None:
    # ATen by what it says; MKL (fp32) and oneDNN (bf16) by the bits of a product.
    def probe(name: str) -> list[str]:
        environment = instruction_sets.worker_environment(name, 1)
        done = subprocess.run(
            [sys.executable, "-c", PROBE],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    narrow, wide = probe("avx2"), probe("avx512")
    assert (narrow[0], wide[0]) == ("AVX2", "AVX512")
    assert narrow[1] != wide[1] or "GenuineIntel" not in Path("/proc/cpuinfo").read_text()
    assert narrow[2] != wide[2] or "avx512_bf16" not in instruction_sets.cpu_flags()
