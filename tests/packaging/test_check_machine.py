"""Contract under test: `make study` and `make test` say what a machine lacks, in a line each."""

import subprocess
import sys
from pathlib import Path

CHECK = Path(__file__).parents[2] / "mk" / "check_machine.py"


def _check(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CHECK)], env=environment, capture_output=True, text=True, check=False
    )


def test_missing_compiler_is_named_with_its_remedy(tmp_path):
    result = _check(PATH=str(tmp_path))
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "C++20 compiler" in line
    assert "install" in line


def test_missing_chosen_compiler_is_named(tmp_path):
    result = _check(PATH=str(tmp_path), CXX="my-compiler -m64")
    assert result.returncode == 1
    assert "my-compiler" in result.stderr


def test_a_machine_with_a_compiler_passes(tmp_path):
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    result = _check(PATH=str(tmp_path))
    assert (result.returncode, result.stderr) == (0, "")
