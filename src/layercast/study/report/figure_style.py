"""What the figures share: colours by name of a style-sheet variable, marks, axes, margins.

plotly.py accepts "var(--name)" for a colour; the page puts the theme's colour in its place, so a
figure is one and the same in dark and light.
"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

#: Variables of the style sheet, and a mark that tells precisions apart without colour.
_PRECISION_MARKS = {
    "bf16": ("--bf16", "circle"),
    "fp16": ("--fp16", "diamond"),
    "fp32": ("--fp32", "square"),
    "layercast": ("--layercast", "triangle-up"),
}
_OTHER_MARKS = (("--other-1", "cross"), ("--other-2", "triangle-down"), ("--other-3", "hexagon"))
_FONT = '"Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif'


def precision_mark(name: str) -> tuple[str, str]:
    """Colour and plotly symbol of a precision."""
    if name in _PRECISION_MARKS:
        variable, symbol = _PRECISION_MARKS[name]
    else:
        variable, symbol = _OTHER_MARKS[sum(name.encode()) % len(_OTHER_MARKS)]
    return f"var({variable})", symbol


def style(figure: go.Figure, *, height: int, x_title: str, y_title: str = "") -> go.Figure:
    """Give a figure the page's margins, fonts and axes, all in place; returns it."""
    axis: dict[str, Any] = {
        "gridcolor": "var(--grid)",
        "linecolor": "var(--line)",
        "tickcolor": "var(--line)",
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
        "title": {"standoff": 10, "font": {"size": 12, "color": "var(--muted)"}},
        "tickfont": {"size": 12, "color": "var(--muted)"},
    }
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        margin={"l": 8, "r": 12, "t": 10, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": _FONT, "size": 13, "color": "var(--ink)"},
        hoverlabel={
            "bgcolor": "var(--panel)",
            "bordercolor": "var(--line)",
            "font": {"family": _FONT, "size": 13, "color": "var(--ink)"},
            "align": "left",
        },
        hovermode="closest",
        dragmode=False,
        showlegend=False,
    )
    figure.update_xaxes(axis, title_text=x_title)
    figure.update_yaxes(axis, title_text=y_title)
    return figure


def legend_above(figure: go.Figure) -> go.Figure:
    """Show the legend above the plot, in one row where there is room."""
    return figure.update_layout(
        showlegend=True,
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 12, "color": "var(--ink)"},
            "itemclick": False,
            "itemdoubleclick": False,
        },
        margin={"t": 34},
    )
