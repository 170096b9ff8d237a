"""The page's style sheet and script, put together from the files of this package."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from plotly.offline import get_plotlyjs

_STYLES = ("page.css", "tables.css", "browser.css", "print.css")
_SCRIPTS = (
    "elements.js",
    "payload.js",
    "theme.js",
    "figures.js",
    "problem_list.js",
    "comparison.js",
    "page.js",
)
_CHOSEN_DARK = ':root[data-theme="dark"]'
_SYSTEM_DARK = ':root:not([data-theme="light"])'


def style_sheet() -> str:
    """All styles; the dark colours serve the reader's choice and the system's."""
    dark = _read("dark.css")
    system = f"@media (prefers-color-scheme: dark) {{\n{dark.replace(_CHOSEN_DARK, _SYSTEM_DARK)}}}"
    return "\n".join([_read("theme.css"), dark, system, *map(_read, _STYLES)])


def page_script() -> str:
    """All of the page's own scripts, in one scope of their own."""
    return "\n".join(['(() => {\n"use strict";', *map(_read, _SCRIPTS), "})();"])


def plotly_script() -> str:
    """plotly.js as the installed plotly package ships it."""
    return str(get_plotlyjs())


def content_policy(*scripts: str) -> str:
    """A policy under which nothing is loaded and only the given inline scripts run.

    Styles stay open because plotly.js writes its own; they cannot load anything.
    """
    digests = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _read(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text("utf-8")
