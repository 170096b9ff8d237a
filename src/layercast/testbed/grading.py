"""Grading of the bundled task: the last boxed integer of a text against the expected one."""

from __future__ import annotations

import re

_BOXED = re.compile(r"\\boxed\{\s*(-?\d+)\s*\}")


def extract(text: str) -> str | None:
    r"""Return the integer in the last ``\boxed{...}`` of `text`, or None where there is none."""
    found = _BOXED.findall(text)
    return str(int(found[-1])) if found else None


def grade(text: str, answer: str) -> bool:
    """Say whether the last boxed integer of `text` equals `answer`."""
    got = extract(text)
    return got is not None and got == str(int(answer))
