"""Contract under test: numbers that pages state, and nobody measured, are those of the code."""

from __future__ import annotations

import inspect
import math

from figures import page_text
from pages import DOCS, table_rows, text_of

from layercast.auditing.windows import LONGEST_RUN
from layercast.grading import mathematics
from layercast.grading.sandbox import commands
from layercast.grading.sandbox.limits import MIB, Limits
from layercast.study.bootstrap import Bootstrap
from layercast.study.flips import CLOSE
from layercast.study.sample_size import std_relative_error


def test_limits_of_the_sandbox_are_its_own():
    limits = Limits()
    rows = {row[0]: row[1] for row in table_rows(text_of(DOCS / "tasks.md"), "| | limit |")}
    assert rows["CPU time of a process"] == f"{limits.cpu_seconds} s"
    assert rows["time from start to end"] == f"{limits.wall_seconds:g} s"
    (memory,) = (limit for what, limit in rows.items() if what.startswith("address space"))
    assert memory == f"{limits.memory_mib / 1024:g} GiB"
    assert rows["processes"] == str(limits.processes)
    together = commands._home_bytes(limits) // MIB
    assert rows["a file, and all files"] == f"{limits.file_mib} MiB, {together} MiB"
    assert together == 4 * limits.file_mib  # as the docstring of `Limits` says
    assert rows["standard output"] == f"{limits.output_mib} MiB"
    assert f"up to {limits.processes} processes for {limits.wall_seconds:g} s" in page_text(
        DOCS / "tasks.md"
    )


def test_limits_of_a_comparison_are_the_graders():
    memory = mathematics._MEMORY_BYTES / 2**30
    seconds = inspect.signature(mathematics.MathGrader).parameters["cpu_seconds"].default
    said = f"with {memory:g} GiB of memory and {seconds:g} s of CPU time"
    assert said in page_text(DOCS / "tasks.md")


def test_error_of_a_deviation_is_the_formulas():
    said = f"{100 * std_relative_error(12):.0f} %"
    assert f"uncertain ({said} from 12)" in page_text(DOCS / "audit-a-number.md")
    statistics = page_text(DOCS / "statistics.md")
    assert f"from 12 configurations carries a relative standard error of about {said}" in statistics


def test_roundings_of_a_sum_are_the_contracts():
    chunks = math.ceil(18944 / 8 / 64)
    # In its chunk, in each further addition of its shard, in the tree.
    most = 64 + (chunks - 1) + 3
    assert f"For K = 18,944 that is at most {most} roundings" in page_text(DOCS / "numerics.md")


def test_settings_of_the_statistics_are_the_defaults():
    statistics = page_text(DOCS / "statistics.md")
    defaults = inspect.signature(Bootstrap).parameters
    samples, level = defaults["samples"].default, defaults["level"].default
    said = f"{100 * level:.0f} % percentile intervals of {samples:,} bootstrap resamples"
    assert said in statistics
    assert f"margin below {CLOSE:g} nat" in statistics


def test_longest_window_is_the_audits():
    assert f"longer than {LONGEST_RUN} tokens are shortened" in page_text(DOCS / "audit.md")
