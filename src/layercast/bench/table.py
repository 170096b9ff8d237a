"""What a run shows on a terminal: the verdict in times as fast, one line a case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table

from layercast.bench.case import Variant
from layercast.bench.runner import Measurement

_OTHERS = {
    Variant.STOCK_BF16: "bf16",
    Variant.STOCK_FP16: "fp16",
    Variant.STOCK_FP32: "FP32",
    Variant.PUBLISHED: "published",
}


def result_table(measurements: Sequence[Measurement]) -> Table:
    """Return the table of one operation's cases, at least one."""
    if measurements[0].case.operation == "memory":
        return memory_table(measurements)
    return speed_table(measurements)


def speed_table(measurements: Sequence[Measurement]) -> Table:
    """Return the table of one operation: layercast's time, and times as fast as each other way."""
    operation = measurements[0].case.operation
    others = [name for name in _OTHERS if any(name in m.times for m in measurements)]
    with_peak = any(m.share_of_peak is not None for m in measurements)
    with_error = any("relative_error" in m.checked for m in measurements)
    table = Table(
        title=f"{operation}: time, and times as fast as ...",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("\nshape", no_wrap=True)
    headings = ["\nrows", "\nlayercast", *(f"\n{_OTHERS[name]}" for name in others)]
    headings += ["error /\nFP32's"] * with_error + ["FMA\npeak"] * with_peak
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for m in measurements:
        cells = [m.case.shape_text, f"{m.case.rows:,}", _milliseconds(m)]
        cells += [_speed(m, name) for name in others]
        cells += [_error(m)] * with_error
        cells += ["" if m.share_of_peak is None else f"{m.share_of_peak:.0%}"] * with_peak
        table.add_row(*cells)
    return table


def memory_table(measurements: Sequence[Measurement]) -> Table:
    """Return load time and memory of each model in each variant."""
    table = Table(title="memory", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("", no_wrap=True)
    for heading in ("load s", "anonymous MB", "file MB", "peak MB"):
        table.add_column(heading, justify="right")
    for m in measurements:
        for variant, times in m.times.items():
            found = m.facts["memory_bytes"][variant]
            sizes = (found[f"{name}_bytes"] for name in ("anonymous", "file", "peak"))
            table.add_row(
                m.case.shape_text if variant is Variant.LAYERCAST else "",
                _OTHERS.get(variant, str(variant)),
                f"{times.median:.2f}",
                *(f"{size / 1e6:,.0f}" for size in sizes),
            )
    return table


def notes(measurements: Iterable[Measurement]) -> list[str]:
    """Return what the figures mean, and what disturbed them."""
    lines = [
        "layercast: median time of an operation (a decode step, a prefill). bf16, FP32: stock "
        "PyTorch. published: F.linear(x, weight.float()). Their median / ours, quartiles below; "
        "above 1, layercast is faster."
    ]
    measurements = list(measurements)
    if not all(m.quiet for m in measurements):
        lines.append(
            "Not quiet: other processes ran meanwhile, which slows one library more than another. "
            "Measure again on a machine at rest."
        )
    for m in measurements:
        if m.facts.get("past_last_level_cache") is False:
            lines.append(f"Too little memory to read {m.case.label} past the last-level cache.")
    return lines


def _milliseconds(measurement: Measurement) -> str:
    milliseconds = measurement.times[Variant.LAYERCAST].median * 1e3
    text = f"{milliseconds:,.{1 if milliseconds >= 100 else 2 if milliseconds >= 1 else 4}f} ms"
    return text if measurement.quiet else f"{text}\nnot quiet"


def _times(value: float) -> str:
    return f"{value:.{1 if value >= 10 else 2}f}"


def _speed(measurement: Measurement, other: Variant) -> str:
    ratio = measurement.speed(other)
    if ratio is None:
        return ""
    return f"{_times(ratio.value)}\n[dim]{_times(ratio.low)}–{_times(ratio.high)}[/dim]"


def _error(measurement: Measurement) -> str:
    errors = measurement.checked.get("relative_error", {})
    if Variant.STOCK_FP32 not in errors:
        return ""
    return f"{errors[Variant.LAYERCAST] / errors[Variant.STOCK_FP32]:.2f}"
