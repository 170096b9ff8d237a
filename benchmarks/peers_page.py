"""Write the tables of docs/benchmarks.md and its chart from a record of `compare_peers.py`.

    python benchmarks/peers_page.py RECORD

The record is copied to docs/records/peers.json, which the page and its test are held against.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from peers.chart import svg
from peers.page import filled
from peers.tables import blocks

DOCS = Path(__file__).parents[1] / "docs"
RECORD = DOCS / "records" / "peers.json"
PAGE = DOCS / "benchmarks.md"
CHART = DOCS / "images" / "peers.svg"


def main(path):
    """Copy the record, rewrite the page and the chart."""
    text = Path(path).read_text(encoding="utf-8")
    record = json.loads(text)
    page = filled(PAGE.read_text(encoding="utf-8"), blocks(record))
    RECORD.write_text(text, encoding="utf-8")
    PAGE.write_text(page, encoding="utf-8")
    CHART.write_text(svg(record), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
