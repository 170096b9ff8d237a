"""Writing the report: one HTML file, complete or absent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from layercast.errors import RecordError
from layercast.study.atomic import write_atomically
from layercast.study.report.page import render


def write_report(run_folders: Sequence[Path], out: Path) -> Path:
    """Write the report of one or several runs over the same prompts.

    The file needs nothing but a browser: figures, answers, styles and scripts are inside, and it
    loads nothing. The same records give the same bytes.

    Args:
        run_folders: Folders a study was run into; only their records and manifests are read.
        out: The HTML file; replaced if it exists.

    Returns:
        `out`.

    Raises:
        RecordError: a folder has no records, a file is damaged, the folders' prompts differ, or
            `out` cannot be written.
    """
    if not run_folders:
        raise RecordError(
            "report: `run_folders` must name at least one run folder, got none. "
            "Name the folder a study was run into."
        )
    if os.path.isdir(out):
        raise RecordError(
            f"report: `out` must be a file, got the folder {out}. "
            f"Name one in it, such as {out / 'report.html'}."
        )
    # Records come from elsewhere and may hold half a surrogate pair, which UTF-8 has no form for.
    page = render(list(run_folders)).encode("utf-8", "backslashreplace")
    write_atomically(out, lambda file: file.write(page), then="make the report again")
    return out
