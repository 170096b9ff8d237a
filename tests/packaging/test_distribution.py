"""Contract under test: what sdist and wheel hold, and what the wheel says it needs.

The kernels are not compiled here: `make wheel` builds all, `make wheel-test` installs and uses it.
"""

from __future__ import annotations

import configparser
import re
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from scikit_build_core.build import build_sdist, build_wheel

import layercast

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    """The wheel without its extension."""
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return zipfile.ZipFile(folder / build_wheel(str(folder), {"wheel.cmake": "false"}))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> set[str]:
    """What the sdist holds, in names without its own folder."""
    folder = tmp_path_factory.mktemp("sdist")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        name = build_sdist(str(folder))
    with tarfile.open(folder / name) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.fixture(scope="module")
def metadata(wheel) -> Message:
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    return Parser().parsestr(wheel.read(name).decode())


def _package_files() -> set[str]:
    """Every file of the package but what Python and the compiler leave there."""
    source = ROOT / "src"
    files = (path for path in (source / "layercast").rglob("*") if path.is_file())
    return {
        path.relative_to(source).as_posix()
        for path in files
        if path.suffix not in {".pyc", ".so"} and "__pycache__" not in path.parts
    }


def test_wheel_is_the_package_and_its_metadata(wheel):
    names = set(wheel.namelist())
    ours = {name for name in names if name.startswith("layercast/") and not name.endswith("/")}
    assert ours == _package_files()
    info = f"layercast-{layercast.__version__}.dist-info"
    assert {name.split("/")[0] for name in names - ours} == {info}


@pytest.mark.parametrize(
    "kind",
    [
        r"py\.typed",
        r"testbed/checkpoint/model\.safetensors",
        r"testbed/checkpoint/tokenizer\.json",
        r"study/plans/bundled\.toml",
        r"study/report/.*\.(html|j2|jinja)",
        r"kernels/triton/\w+\.py",
    ],
)
def test_wheel_brings_what_a_run_reads(wheel, kind):
    assert [n for n in wheel.namelist() if re.fullmatch(f"layercast/{kind}", n)]


def test_extension_is_installed_with_the_package():
    files = distribution("layercast").files or []
    assert [f for f in files if f.match("layercast/kernels/cpu/_csrc*.so")]


def test_sdist_holds_what_a_build_reads_and_no_more(sdist):
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").glob("*.*")}
    package = {f"src/{name}" for name in _package_files()}
    assert sources | package | {"CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE"} <= sdist
    assert [name for name in sdist if name.endswith((".so", ".pyc"))] == []
    rooms = {"benchmarks", "csrc", "docs", "examples", "mk", "src", "training"}
    assert {name.split("/")[0] for name in sdist if "/" in name} == rooms


def test_requirements_are_those_of_the_project(metadata):
    extras = PROJECT["optional-dependencies"]
    expected = {str(Requirement(line)) for line in PROJECT["dependencies"]}
    for extra, lines in extras.items():
        for line in lines:
            requirement = Requirement(line)
            marker = f'extra == "{extra}"'
            joined = f"{requirement.marker} and {marker}" if requirement.marker else marker
            requirement.marker = None
            expected.add(str(Requirement(f"{requirement}; {joined}")))
    assert {str(Requirement(line)) for line in metadata.get_all("Requires-Dist", [])} == expected
    assert set(metadata.get_all("Provides-Extra", [])) == set(extras)
    assert metadata["Requires-Python"] == PROJECT["requires-python"]


def test_version_comes_from_one_place(metadata):
    assert "version" not in PROJECT
    written = (ROOT / "src" / "layercast" / "version.py").read_text(encoding="utf-8")
    (version,) = re.findall(r'^__version__ = "(.+)"$', written, re.MULTILINE)
    assert metadata["Version"] == layercast.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_entry_points_are_the_command_and_the_plugin(wheel):
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/entry_points.txt"))
    told = configparser.ConfigParser()
    told.read_string(wheel.read(name).decode())
    groups = {"console_scripts": PROJECT["scripts"], **PROJECT["entry-points"]}
    assert {group: dict(told[group]) for group in told.sections()} == groups
