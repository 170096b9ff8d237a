"""The chart: speed of decoding against divergence, a dot an engine and precision, as SVG."""

from __future__ import annotations

import math
from html import escape

from peers.engines import OURS
from peers.tables import divergence_of, engines_in, models_in, result_of, rows_in

WIDTH, HEIGHT = 820, 460
LEFT, RIGHT, TOP, BOTTOM = 76, 24, 64, 64
LABEL_HEIGHT = 17
_TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

_STYLE = """
    .ground { fill: #fbfaf7 }
    .grid { stroke: #dfe2e8 }
    .axis { stroke: #9aa3af }
    .one { stroke: #9aa3af; stroke-dasharray: 5 3 }
    .leader { stroke: #b9c0ca }
    .dot { fill: #b4532a }
    .ours { fill: #2f8f6f }
    text { fill: #1d222b }
    .small { font-size: 12px; fill: #56606d }"""


def points(record, model, rows):
    """Return (engine, times as fast as layercast at decoding, Div_Percent) of those with both."""
    found = []
    for engine in engines_in(record):
        result = result_of(record, engine, model, rows)
        diverging = divergence_of(record, engine)
        if result is not None and diverging is not None:
            speed = 1 / result["speed"]["decode"]["value"]
            found.append((engine, speed, diverging["div_percent"]))
    return found


def limits(speeds):
    """Return the ends of the axis of speed, so that all dots and 1 are well inside."""
    low, high = min(0.7, *speeds, 1), max(1.4, *speeds, 1)
    return low / 1.3, high * 1.9  # labels stand to the right of their dots


def spread(wanted, least):
    """Move values apart.

    Args:
        wanted: Where labels would like to be, ascending.
        least: The distance between neighbours.

    Returns:
        Ascending values at least so far apart, each block of neighbours around its own mean.
    """
    blocks = []  # (first value, how many)
    for value in wanted:
        blocks.append((value, 1))
        while len(blocks) > 1 and blocks[-2][0] + blocks[-2][1] * least > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            middle = (n * (a + (n - 1) * least / 2) + m * (b + (m - 1) * least / 2)) / (n + m)
            blocks[-2:] = [(middle - (n + m - 1) * least / 2, n + m)]
    return [first + i * least for first, count in blocks for i in range(count)]


def svg(record):
    """Return the chart of the first model at the middle batch."""
    model = models_in(record)[0]
    batches = rows_in(record, model)
    rows = batches[len(batches) // 2]
    dots = points(record, model, rows)
    low, high = limits([speed for _, speed, _ in dots])
    highest = max(10.0, *(10 * math.ceil(percent / 10) for _, _, percent in dots))

    def x(speed):
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(speed / low) / math.log(high / low)

    def y(percent):
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * percent / highest

    parts = [
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="10"/>',
        _text(24, 34, f"Speed of decoding against divergence: {model}, batch {rows}"),
        *_grid(x, y, low, high, highest),
        *_labelled([(engine, x(speed), y(percent)) for engine, speed, percent in dots]),
    ]
    title = "Speed of decoding and divergence of each engine; the figures are in the tables"
    body = "\n  ".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="system-ui, sans-serif" font-size="14">\n  <title>{title}</title>\n'
        f"  <style>{_STYLE}\n  </style>\n  {body}\n</svg>\n"
    )


def _grid(x, y, low, high, highest):
    bottom = HEIGHT - BOTTOM
    for tick in (tick for tick in _TICKS if low < tick < high):
        kind = "one" if tick == 1 else "grid"
        yield _line(kind, x(tick), TOP, x(tick), bottom)
        yield _text(x(tick), bottom + 18, f"{tick:g}×", "small", "middle")
    for percent in range(0, int(highest) + 1, 10 if highest <= 50 else 20):
        yield _line("axis" if percent == 0 else "grid", LEFT, y(percent), WIDTH - RIGHT, y(percent))
        yield _text(LEFT - 10, y(percent) + 4, f"{percent} %", "small", "end")
    yield _text(
        (LEFT + WIDTH - RIGHT) / 2,
        HEIGHT - 18,
        "tokens a second when decoding, as a multiple of layercast's: faster to the right",
        "small",
        "middle",
    )
    yield _text(24, TOP - 10, "problems whose answers differ between configurations", "small")


def _labelled(dots):
    """Yield dots, and labels beside them that are moved apart where dots are close."""
    dots = sorted(dots, key=lambda dot: (dot[2], dot[1]))
    heights = spread([height for _, _, height in dots], LABEL_HEIGHT)
    lowest = HEIGHT - BOTTOM - 6  # labels stay off the figures of the axis
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], lowest)
        lowest = heights[i] - LABEL_HEIGHT
    for (engine, across, height), label in zip(dots, heights, strict=True):
        yield _line("leader", across, height, across + 16, label)
        kind = "ours" if engine.name in (OURS, "vllm_layercast") else "dot"
        yield f'<circle class="{kind}" cx="{across:.1f}" cy="{height:.1f}" r="5"/>'
        yield _text(across + 19, label + 4, engine.label)


def _line(kind, x1, y1, x2, y2):
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x, y, text, kind="", anchor="start"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}"'
        + (f' class="{kind}"' if kind else "")
        + (f' text-anchor="{anchor}"' if anchor != "start" else "")
        + f">{escape(text)}</text>"
    )
