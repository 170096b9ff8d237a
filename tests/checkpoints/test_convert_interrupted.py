"""Contract under test: what ends a conversion leaves a whole checkpoint or none."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import layercast
from layercast import testbed
from layercast.checkpoints import convert

# Kills a conversion at its n-th step that touches the file system, for every n.
KILLED_AT_EVERY_STEP = """
import os, pathlib, shutil, signal, sys
from layercast import testbed
from layercast.checkpoints import convert

out = pathlib.Path(sys.argv[1])
rounded = {"weight_dtype": "float16"} if sys.argv[2] == "rounded" else {}


def killing(function, countdown):
    def step(*args, **kwargs):
        countdown[0] -= 1
        if countdown[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return step


for n in range(1000):
    child = os.fork()
    if child == 0:
        countdown = [n]
        shutil.copyfile = killing(shutil.copyfile, countdown)
        for name in ("mkdir", "fsync", "rename"):
            setattr(os, name, killing(getattr(os, name), countdown))
        pathlib.Path.write_text = killing(pathlib.Path.write_text, countdown)
        convert(testbed.path(), out, **rounded)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if out.exists():
        print(n, len(list(out.iterdir())), status)
        break
"""


@pytest.mark.parametrize("kind", ["kept", "rounded"])
def test_a_kill_at_any_step_leaves_no_half_checkpoint(tmp_path, kind):
    result = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EVERY_STEP, str(tmp_path / "out"), kind],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    kills, files, _ = map(int, result.stdout.split())
    assert kills > 10
    assert files == len(list(testbed.path().iterdir()))
    layercast.load(tmp_path / "out")
    # Each start took away what the kill before it had left.
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    result = subprocess.run(
        [sys.executable, "-m", "layercast", "convert", "testbed", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=limit,
    )
    assert result.returncode == 1
    assert "Free space" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_another_process_is_writing_is_left_alone(tmp_path):
    script = (
        "import sys, pathlib\n"
        "from layercast.checkpoints.folder import new_folder\n"
        "with new_folder(pathlib.Path(sys.argv[1])) as partial:\n"
        "    print(partial, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout is not None
        partial = Path(other.stdout.readline().strip())
        assert partial.is_dir()
        convert(testbed.path(), tmp_path / "out")
        assert partial.is_dir()
    finally:
        other.kill()
        other.communicate()
    os.rename(tmp_path / "out", tmp_path / "kept")
    convert(testbed.path(), tmp_path / "out")
    assert not partial.exists()
