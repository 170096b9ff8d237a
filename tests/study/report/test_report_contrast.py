"""Colours of the style sheet in both themes: contrast by WCAG 2.1, and colour-blind eyes."""

from __future__ import annotations

import itertools
import re
from importlib.resources import files

import numpy as np
import pytest

TEXT = ("ink", "muted", "faint", "accent", "left", "right", "good", "bad")
MARKS = ("bf16", "fp16", "fp32", "layercast", "other-1", "other-2", "other-3")


def colours(name: str) -> dict[str, str]:
    sheet = (files("layercast.study.report") / "assets" / name).read_text("utf-8")
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", sheet))


def linear_channels(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def luminance(colour: str) -> float:
    return float(np.array([0.2126, 0.7152, 0.0722]) @ linear_channels(colour))


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


# Machado, Oliveira & Fernandes 2009, severity 1, on linear sRGB.
VISION = {
    "all cones": np.eye(3),
    "no long": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "no middle": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "no short": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
SRGB_TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def seen(colour: str, vision: str) -> np.ndarray:
    """CIE L*a*b* of a colour as eyes of a kind see it."""
    linear = np.clip(np.array(VISION[vision]) @ linear_channels(colour), 0, 1)
    xyz = np.array(SRGB_TO_XYZ) @ linear / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("sheet", ["theme.css", "dark.css"])
def test_colours_that_mean_different_things_differ_to_colour_blind_eyes(sheet, vision):
    theme = colours(sheet)
    for group in (MARKS[:4], [f"answer-{rank}" for rank in range(5)], ["left", "right"]):
        for a, b in itertools.combinations(group, 2):
            difference = np.linalg.norm(seen(theme[a], vision) - seen(theme[b], vision))
            # Several times the difference that is just noticed (2.3); marks differ in shape too.
            assert difference >= 15, (a, b)
