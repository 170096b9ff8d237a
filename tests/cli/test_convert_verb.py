"""Contract under test: `layercast convert` says what it wrote, and whether it rounded."""

from __future__ import annotations

import subprocess
import sys


def _layercast(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "layercast", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_convert_says_that_weights_kept_their_bits(tmp_path):
    out = tmp_path / "out"
    result = _layercast("convert", "testbed", str(out))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"Checkpoint: {out} (1 weight file, 6.2 MB, bit for bit)\n"
    again = _layercast("convert", "testbed", str(out))
    assert again.returncode == 1
    assert again.stderr.startswith("layercast: convert: ")
    assert len(again.stderr.splitlines()) == 1


def test_convert_says_that_it_rounded(tmp_path):
    result = _layercast("convert", "testbed", str(tmp_path / "out"), "--weight-dtype", "float16")
    assert result.returncode == 0, result.stderr
    assert "Rounded to float16: 240 of 3,117,312 values changed." in result.stdout
    assert "bit for bit" not in result.stdout
