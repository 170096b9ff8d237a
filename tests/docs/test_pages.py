"""Contract under test: commands, options, make targets and files that pages name are there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pages import PAGES, ROOT, text_of

from layercast.cli.main import app

COMMAND = typer.main.get_command(app)
CONSOLE = re.compile(r"^ *```console\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def lines(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command in a page's consoles."""
    for block in CONSOLE.findall(text_of(page)):
        joined = block.replace("\\\n", " ")
        for line in joined.splitlines():
            if line.lstrip().startswith("$ "):
                yield shlex.split(line.lstrip()[2:], comments=True)


def check_command(words: list[str]) -> None:
    """Fail unless `layercast` has this verb, with these options and so many arguments."""
    command: Any = COMMAND
    while words and hasattr(command, "commands"):
        verb, *words = words
        if verb in {"--version", "--help"}:
            return
        assert verb in command.commands, f"no verb {verb!r}"
        command = command.commands[verb]
    if command.context_settings.get("ignore_unknown_options"):  # passed on to another program
        return
    options = {name for parameter in command.params for name in parameter.opts}
    for word in words:
        if word.startswith("-") and word != "-":
            assert word.split("=")[0] in {*options, "--help"}, f"{command.name} has no {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_verbs_and_options_named(page):
    for words in lines(page):
        if words[0] == "layercast":
            check_command(words[1:])


def test_an_option_that_does_not_exist_is_noticed():
    with pytest.raises(AssertionError, match="--nonsense"):
        check_command(["study", "report", "runs/x", "--nonsense"])
    with pytest.raises(AssertionError, match="no verb"):
        check_command(["measure"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_are_there(page):
    rules = "\n".join(map(text_of, [ROOT / "Makefile", *(ROOT / "mk").glob("*.mk")]))
    targets = set(re.findall(r"^([\w-]+):", rules, re.MULTILINE))
    for words in lines(page):
        if words[0] == "make":
            assert words[1] in targets, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_are_there(page):
    named = re.findall(
        r"`((?:tests|docs|benchmarks|training|examples|csrc|src)/[\w./-]+)`", text_of(page)
    )
    for name in named:
        assert (ROOT / name).exists(), name
