"""Generated blocks in a page: found by their markers, replaced whole."""

from __future__ import annotations

import re

_BLOCK = re.compile(r'(<div markdown id="(\w+)">\n).*?(</div>)', re.DOTALL)


def filled(text, blocks):
    """Return the page with its blocks replaced.

    Args:
        text: Of the page; a block is what is in `<div markdown id="NAME">`.
        blocks: Name to Markdown; each must be in the page, and the page may have no other.

    Raises:
        ValueError: The page and `blocks` do not have the same names.
    """
    there = [match[2] for match in _BLOCK.finditer(text)]
    if sorted(there) != sorted(blocks):
        raise ValueError(
            f"page: blocks must be {', '.join(sorted(blocks))}, each once, got "
            f"{', '.join(sorted(there))}. Mend the page's markers."
        )
    return _BLOCK.sub(lambda match: f"{match[1]}\n{blocks[match[2]]}\n\n{match[3]}", text)
