"""Building and running the C++ test programs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "csrc-tests"


def find_tool(name):
    """A tool of the environment the tests run in, or of the system."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


def build(folder, *options):
    """Configure and build the C++ test programs in `folder`."""
    cmake = find_tool("cmake")
    if cmake is None:
        pytest.fail(
            "cmake is missing: install it with `pip install cmake`, then run the tests again"
        )
    folder.mkdir(parents=True, exist_ok=True)
    settings = ["-DLAYERCAST_TESTS=ON", "-DLAYERCAST_PYTHON=OFF", *options]
    for command in (
        [cmake, "-S", str(ROOT), "-B", str(folder), *settings],
        [cmake, "--build", str(folder), "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def output_of(program, *arguments):
    """What a program prints; fails with its errors where it does."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def fields(line):
    """The name=value pairs of a program's line."""
    return dict(part.split("=") for part in line.split() if "=" in part)
