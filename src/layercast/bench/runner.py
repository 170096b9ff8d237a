"""Prepare a case, check its results, and only then time its variants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from layercast.bench.case import Case, Facts, Prepared, Variant
from layercast.bench.registry import prepare
from layercast.bench.timing import Ratio, Schedule, Times, interleave, speed
from layercast.bench.workspace import Workspace


@dataclass(frozen=True)
class Measurement:
    """A case's times.

    Attributes:
        case: What was measured.
        times: Seconds an operation, for each variant.
        checked: What the check found: equal values, errors against float64.
        facts: How the inputs lay in memory, and what else is known of the case.
        rates: Scalar fused multiply-adds a second, where they were counted.
        rounds_dropped: Rounds left out because other processes took the cores.
        quiet: False where there were too few rounds without that.
    """

    case: Case
    times: Mapping[Variant, Times]
    checked: Facts
    facts: Facts
    rates: Mapping[Variant, float]
    rounds_dropped: int
    quiet: bool

    def speed(self, other: Variant) -> Ratio | None:
        """Return how many times as fast layercast is as `other`, if that was measured."""
        if other not in self.times:
            return None
        return speed(self.times[Variant.LAYERCAST], self.times[other])

    @property
    def share_of_peak(self) -> float | None:
        """Return layercast's rate over the rate measured beside it, if that was."""
        peak = self.rates.get(Variant.FMA_PEAK)
        return None if peak is None else self.rates[Variant.LAYERCAST] / peak


def run(
    cases: Iterable[Case],
    workspace: Workspace,
    schedule: Schedule,
    *,
    on_stage: Callable[[Case, str], None] = lambda case, stage: None,
    prepare: Callable[[Case, Workspace], Prepared] = prepare,
) -> Iterator[Measurement]:
    """Measure cases one after the other.

    Args:
        cases: What to measure.
        workspace: Resources of the run.
        schedule: Rounds of each case.
        on_stage: Told what happens next: "preparing", "checking" or "timing".
        prepare: Makes a case's turns.

    Yields:
        A measurement a case.

    Raises:
        GuaranteeError: A result is wrong; that case is not timed.
    """
    for case in cases:
        with torch.inference_mode():
            on_stage(case, "preparing")
            prepared = prepare(case, workspace)
            on_stage(case, "checking")
            checked = prepared.check()
            on_stage(case, "timing")
            rounds = interleave(
                prepared.turns,
                prepared.schedule or schedule,
                clock=workspace.clock,
                disturbed=workspace.disturbed,
            )
            times = rounds.times
            rates = {
                variant: fmas / times[variant].median
                for variant, fmas in prepared.fmas.items()
                if variant in times
            }
            facts = {**prepared.facts, **prepared.after()}
        del prepared
        yield Measurement(case, times, checked, facts, rates, rounds.dropped, rounds.quiet)
