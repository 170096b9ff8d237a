"""Contract under test: no compiler option rearranges arithmetic; no copy leaks into another."""

import json
import re
import shutil
import subprocess

import pytest
from cpp_programs import ROOT

FORBIDDEN = (
    "-ffast-math",
    "-Ofast",
    "-funsafe-math-optimizations",
    "-fassociative-math",
    "-freciprocal-math",
    "-ffinite-math-only",
    "-fno-signed-zeros",
    "-ffp-contract=fast",
    "-ffp-contract=on",
    "-march=native",
)


@pytest.fixture(scope="module")
def commands(programs):
    entries = json.loads((programs / "compile_commands.json").read_text())
    return [entry for entry in entries if "/csrc/" in entry["file"]]


def faults(command):
    """What is wrong with one compile command."""
    words = command.split()
    found = [flag for flag in FORBIDDEN if flag in words]
    if "-ffp-contract=off" not in words:
        found.append("no -ffp-contract=off")
    return found


def test_every_file_is_compiled_without_contraction_or_fast_math(commands):
    assert len(commands) > 10
    assert {
        entry["file"]: faults(entry["command"]) for entry in commands if faults(entry["command"])
    } == {}


def test_a_faulty_command_is_caught():
    assert faults("c++ -O3 -c csrc/linear.cc") == ["no -ffp-contract=off"]
    assert faults("c++ -ffp-contract=off -ffast-math -c csrc/linear.cc") == ["-ffast-math"]


def test_the_flags_stand_in_the_build_file_for_every_target():
    text = (ROOT / "CMakeLists.txt").read_text()
    assert re.search(r"^add_compile_options\(-ffp-contract=off -fno-fast-math", text, re.MULTILINE)
    assert not [flag for flag in FORBIDDEN if flag in text.replace("-fno-fast-math", "")]


def test_every_instruction_set_compiles_every_kernel_file(commands):
    built = {}
    for entry in commands:
        isa = re.search(r"-DLAYERCAST_ISA=(\w+)", entry["command"])
        if isa:
            built.setdefault(isa[1], set()).add(entry["file"])
    assert "scalar" in built
    assert len(built) >= 2
    assert len(set(map(frozenset, built.values()))) == 1


def weak_symbols(objects):
    """Symbols of kernel objects that a linker could replace by another object's copy."""
    listing = subprocess.run(
        [shutil.which("nm"), "--defined-only", *objects], capture_output=True, text=True, check=True
    ).stdout
    return re.findall(r"^[0-9a-f]+ [VWuvw] (.*)$", listing, re.MULTILINE)


def test_no_copy_of_a_kernel_can_be_merged_into_another(programs):
    objects = [
        str(path) for path in programs.rglob("*.o") if re.search(r"layercast_\w+\.dir", str(path))
    ]
    kernels = [path for path in objects if "layercast_kernels" not in path]
    assert len(kernels) >= 10
    assert weak_symbols(kernels) == []
    # The control: files compiled once may use the standard library, and its templates show.
    once = [path for path in objects if "layercast_kernels" in path]
    assert weak_symbols(once) != []


def test_only_the_bindings_know_python_and_nothing_knows_torch():
    for path in (ROOT / "csrc").rglob("*"):
        if path.suffix in (".cc", ".h"):
            text = path.read_text()
            assert not re.search(r"#include\s+[<\"](torch|ATen|c10)/", text), path
            if path.name != "bindings.cc":
                assert not re.search(r"#include\s+[<\"](nanobind|Python)", text), path
