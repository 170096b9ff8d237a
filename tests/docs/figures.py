"""Measured figures on pages, and the records they name.

A figure is followed, without a space, by a comment that readers do not see and that names its
record, the value's place in it and the format (Python's) that makes the figure of the value:

    72 %<!-- docs/records/bundled-study.json precisions.bf16.div_percent.value .0f -->

The place is keys, or positions in a list, joined by dots; `/2e9` after it divides the value. A
format that ends in `%` makes a percentage of a share. Between figure and comment may stand a unit.
A line may break inside the comment and not before it, where Markdown would take it for a block.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pages import ROOT, text_of

_NUMBER = r"(?<![\w.,-])\d(?:[\d.,]*\d)?"
_MARK = re.compile(
    rf"(?P<shown>{_NUMBER})[^\d<>|\n]{{0,30}}"
    r"<!--\s(?P<record>\S+\.json)\s+(?P<place>[^\s/]+)(?:/(?P<divisor>\S+))?\s+(?P<format>\S+)\s-->"
)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_CODE = re.compile(r"^ *```.*?^ *```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_TARGET = re.compile(r"\]\([^)\s]*\)")
# What a number with one of these behind it says was measured, unless it is known to be stated.
_UNITS = (
    "%|ms|s|min|minutes?|seconds?|hours?|[kKMGT]i?B|[MB] parameters|points|tokens|ulps?|nats?|"
    "times|[x×]|problems|configurations|answers|positions|log-probabilities|roundings|cores?|"
    r"of \d+|of stock"
)
_MEASURED = re.compile(rf"{_NUMBER}[\s-]?(?:{_UNITS})(?!\w)")


@dataclass(frozen=True)
class Figure:
    """A figure as a page shows it, and where its value is."""

    shown: str
    record: str
    place: str
    divisor: float
    format: str

    def value(self, root: Path = ROOT) -> float:
        """Return the recorded value."""
        found: Any = json.loads((root / self.record).read_text(encoding="utf-8"))
        for key in self.place.split("."):
            found = found[int(key)] if isinstance(found, list) else found[key]
        return found / self.divisor if self.divisor != 1 else found

    def as_shown(self, value: float) -> str:
        """Return how the page must show this value."""
        return format(value, self.format).removesuffix("%")


def figures_of(text: str) -> list[Figure]:
    """Return the figures that name a record.

    Raises:
        ValueError: A comment without a space before it holds something else.
    """
    marks = list(_MARK.finditer(text))
    ends = {mark.end() for mark in marks}
    for comment in _COMMENT.finditer(text):
        follows = text[: comment.start()][-1:].strip()
        if follows and comment.end() not in ends:
            raise ValueError(f"names no figure's record: {comment.group()!r}")
    return [
        Figure(m["shown"], m["record"], m["place"], float(m["divisor"] or 1), m["format"])
        for m in marks
    ]


def disagreeing(text: str, root: Path = ROOT) -> list[str]:
    """Return what is wrong, a sentence for each figure that is not its record's."""
    found = ((figure, figure.as_shown(figure.value(root))) for figure in figures_of(text))
    return [
        f"{figure.shown} is {recorded} in {figure.record}, {figure.place}"
        for figure, recorded in found
        if figure.shown != recorded
    ]


def without_record(text: str, stated: list[str]) -> list[str]:
    """Return the numbers in prose that look measured, name no record and are not `stated`."""
    for pattern in (_CODE, _MARK, _TARGET):
        text = pattern.sub(" ", text)
    text = " ".join(text.split())
    for phrase in stated:
        text = text.replace(phrase, "")
    return [text[max(0, m.start() - 30) : m.end() + 30] for m in _MEASURED.finditer(text)]


def page_text(page: Path) -> str:
    """Return a page as its readers see it, in one line: no comments, no line breaks."""
    return " ".join(_COMMENT.sub("", text_of(page)).split())
