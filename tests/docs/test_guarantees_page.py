"""Contract under test: every promise names a test that is there; the README promises no more."""

from __future__ import annotations

import re

from pages import DOCS, README, ROOT, table_rows, text_of

from layercast.integrations.transformers.architectures import TESTED

ROWS = table_rows(text_of(DOCS / "guarantees.md"), "| property |")


def _without_links(cell: str) -> str:
    return re.sub(r" \(\[\w+\]\([\w/.-]+\)\)", "", cell)


def test_readme_has_the_rows_of_the_page():
    page = [(_without_links(row[0]), row[3]) for row in ROWS]
    readme = table_rows(text_of(README), "| property |")
    assert [(_without_links(name), checked) for name, checked in readme] == page
    assert len(page) > 12


def test_every_row_names_a_test_that_is_there():
    for name, _, tests, _ in ROWS:
        named = re.findall(r"`((?:tests/)?[\w/]*test_\w+\.py|tests/[\w/]+/)`", tests)
        assert named, name
        for test in named:
            # A file beside the one named before it is named without its folder.
            found = (ROOT / test, ROOT / "tests" / "integrations" / test)
            assert any(path.exists() for path in found), test


def test_architectures_named_are_those_that_are_tested():
    page = " ".join(text_of(DOCS / "limits.md").split())
    sentence = page.split("Tested architectures:")[1].split("(DeepSeek")[0]
    names = sentence.replace("Gemma 2 and 3 (text)", "Gemma 2, Gemma 3 text").split(",")
    spelt = {re.sub(r"[\s-]", "", name).lower() for name in names}
    assert spelt == {name.replace("_", "") for name in TESTED}
    assert f"- {len(TESTED)} architectures are tested one by one" in text_of(README)
