"""lm-eval's own command line, with the model `layercast` registered and the default."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from layercast.errors import EnvironmentSetupError

NAME = "layercast"
_OTHER_COMMANDS = ("ls", "validate", "-h", "--help")


def run(arguments: Sequence[str]) -> None:
    """Do what `lm-eval ARGUMENTS` does.

    lm-eval looks for no entry points, so a model of another package is known to it only in a
    process that registers it first.

    Args:
        arguments: Of lm-eval, which documents them; `--model layercast` is added to an
            evaluation that names no model.

    Raises:
        EnvironmentSetupError: lm-eval is not installed.
        SystemExit: As lm-eval ends.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise EnvironmentSetupError(
            "lm-eval: the package lm-eval must be installed, got an environment without it. "
            "Install it: pip install 'layercast[lm-eval]'."
        )
    from lm_eval.__main__ import cli_evaluate

    register()
    before = sys.argv
    sys.argv = ["lm-eval", *with_model(arguments)]
    try:
        cli_evaluate()
    finally:
        sys.argv = before


def register() -> None:
    """Make `layercast` a model of lm-eval in this process; again is the same as once."""
    import lm_eval.models  # noqa: F401 - fills the registry, which would otherwise be left empty
    from lm_eval.api.registry import model_registry, register_model

    from layercast.integrations.lm_eval.model import LayerCastLM

    if NAME not in model_registry:
        register_model(NAME)(LayerCastLM)


def with_model(arguments: Sequence[str]) -> list[str]:
    """Add `--model layercast` where lm-eval would take its own default.

    Args:
        arguments: Of lm-eval.

    Returns:
        They, and the model unless they, or the file that `--config` names, say which; or they
        ask for something else than an evaluation.
    """
    given = list(arguments)
    if not given or given[0] in _OTHER_COMMANDS or given == ["run"]:
        return given
    names = [word.partition("=")[0] for word in given]
    if any(name in ("--model", "-M") or _is_short(name, "-M") for name in names):
        return given
    for at, name in enumerate(names):
        if name in ("--config", "-C"):
            file = given[at].partition("=")[2] or "".join(given[at + 1 : at + 2])
            if "model" in _entries(file):
                return given
    return [*given, "--model", NAME]


def _is_short(word: str, option: str) -> bool:
    """Whether a word is a short option with its value joined: `-Mhf`."""
    return word.startswith(option) and not word.startswith("--")


def _entries(file: str) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}  # lm-eval reads it next, and says what is wrong with it
    return found if isinstance(found, dict) else {}
