"""Contract under test: docs/plans.md names every key and its default; its examples are plans."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from layercast.study.axes import Axes
from layercast.study.decoding import _SAMPLING_DEFAULTS, Decoding
from layercast.study.engine_settings import EngineSettings
from layercast.study.plan import Plan, parse_plan
from layercast.study.refusals import refuse_what_cannot_be

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "plans.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SECTIONS = {
    "## The keys": Plan,
    "### `[axes]`": Axes,
    "### `[decoding]`": Decoding,
    "### `[engine]`": EngineSettings,
}


def rows(heading: str) -> dict[str, str]:
    """Return the table under a heading: defaults by key."""
    start = PAGE.index(f"\n{heading}") + 1
    section = re.split(r"\n##", PAGE[start + len(heading) :])[0]
    found = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)
    return dict(found)


@pytest.mark.parametrize("heading", SECTIONS)
def test_page_names_every_key_once_and_no_other(heading: str) -> None:
    tables = {"engine", "axes", "decoding"}  # sections of their own
    expected = [name for name in SECTIONS[heading].model_fields if name not in tables]
    assert sorted(rows(heading)) == sorted(expected)


@pytest.mark.parametrize("heading", SECTIONS)
def test_page_tells_the_defaults(heading: str) -> None:
    for name, told in rows(heading).items():
        default = plain_default(SECTIONS[heading], name)
        if told[:1] in '[{"0123456789' and told:
            assert tomllib.loads(f"x = {told}")["x"] == default, name
        else:  # in words, or none
            assert default in (..., None, [], {}), name


def plain_default(model: type[BaseModel], name: str) -> Any:
    """Return a key's default as TOML has it; ... if the key must be given."""
    if model is Decoding and name in _SAMPLING_DEFAULTS:
        return _SAMPLING_DEFAULTS[name]
    field = model.model_fields[name]
    if field.is_required():
        return ...
    default = field.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return {}
    return list(default) if isinstance(default, tuple) else default


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_page_are_plans_that_engines_take(example: str) -> None:
    refuse_what_cannot_be(parse_plan(tomllib.loads(example)))


def test_page_has_examples() -> None:
    assert len(EXAMPLES) == 4
