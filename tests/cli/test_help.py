"""Contract under test: every verb's help ends in two worked examples, and starts without torch."""

import subprocess
import sys

import pytest

VERBS = (
    ["generate"],
    ["bench"],
    ["env"],
    ["convert"],
    ["serve"],
    ["compare"],
    ["study", "run"],
    ["study", "report"],
    ["study", "merge"],
)


def _layercast(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from layercast.cli.main import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help_holds_two_worked_examples(verb):
    result = _layercast(*verb, "--help")
    assert result.returncode == 0, result.stderr
    examples = result.stdout.split("Examples", 1)[1]
    assert examples.count(f"$ layercast {' '.join(verb)}") >= 2


def test_help_does_not_import_torch():
    code = (
        "import sys; sys.argv = ['layercast', '--help']\n"
        "from layercast.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_version_is_the_one_of_the_package():
    from layercast.version import __version__

    assert _layercast("--version").stdout.strip() == f"layercast {__version__}"
