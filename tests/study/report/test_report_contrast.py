"""Colours of the style sheet: contrast by WCAG 2.1, in both themes."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

TEXT = ("ink", "muted", "faint", "accent", "left", "right", "good", "bad")
MARKS = ("bf16", "fp16", "fp32", "layercast", "other-1", "other-2", "other-3")


def colours(name: str) -> dict[str, str]:
    sheet = (files("layercast.study.report") / "assets" / name).read_text("utf-8")
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", sheet))


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_by_hand():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("sheet", ["theme.css", "dark.css"])
def test_text_and_marks_stand_out(sheet):
    theme = colours(sheet)
    for ground in (theme["ground"], theme["panel"]):
        for name in TEXT:
            assert contrast(theme[name], ground) >= 4.5, (name, ground)
        for name in MARKS:
            assert contrast(theme[name], ground) >= 3, (name, ground)
    for side in ("left", "right"):
        assert contrast(theme["ink"], theme[f"{side}-tint"]) >= 4.5
    for rank in range(1, 5):
        assert contrast(theme[f"answer-{rank}"], theme["answer-0"]) >= 3, rank


def test_themes_name_the_same_colours():
    assert colours("theme.css").keys() == colours("dark.css").keys()
