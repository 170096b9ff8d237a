"""Contract under test: nothing is timed before it is checked, and red checks are never reported."""

import pytest
import torch
from fakes import NAMES, FakeClock, Turns, fake_case, fake_prepared, quiet_workspace

from layercast.bench.case import Variant
from layercast.bench.checks import require_bits
from layercast.bench.runner import run
from layercast.bench.timing import Schedule
from layercast.errors import GuaranteeError

SCHEDULE = Schedule(warmup_rounds=0, rounds_min=3, rounds_max=3, seconds=0)


def _turns(clock):
    return Turns(clock, layercast=[2.0] * 9, stock_fp32=[6.0] * 9)


def _named(turns):
    return {Variant(name): turns.of(name) for name in turns.seconds}


def test_a_case_is_checked_before_its_first_turn():
    clock, events = FakeClock(), []
    turns = _turns(clock)

    def check():
        events.append(f"checked after {len(turns.order)} turns")
        return {"values_equal_to_definition": 1}

    (measurement,) = run(
        [fake_case()],
        quiet_workspace(clock),
        SCHEDULE,
        on_stage=lambda case, stage: events.append(stage),
        prepare=lambda case, workspace: fake_prepared(_named(turns), check),
    )
    assert events == ["preparing", "checking", "checked after 0 turns", "timing"]
    assert len(turns.order) == 3 * len(NAMES)
    assert measurement.speed(Variant.STOCK_FP32).value == 3.0
    assert measurement.checked == {"values_equal_to_definition": 1}


def test_a_wrong_bit_is_an_error_and_no_variant_takes_a_turn():
    clock = FakeClock()
    turns = _turns(clock)
    wrong, right = torch.tensor([1.0]), torch.tensor([1.0000001])
    measurements = run(
        [fake_case()],
        quiet_workspace(clock),
        SCHEDULE,
        prepare=lambda case, workspace: fake_prepared(
            _named(turns), lambda: {"compared": require_bits("linear", wrong, right)}
        ),
    )
    with pytest.raises(GuaranteeError, match="Nothing was timed"):
        next(measurements)
    assert turns.order == []


def test_share_of_peak_is_a_ratio_of_rates():
    clock = FakeClock()
    turns = Turns(clock, layercast=[4.0] * 3, fma_peak=[2.0] * 3)
    (measurement,) = run(
        [fake_case(variants=(Variant.LAYERCAST, Variant.FMA_PEAK))],
        quiet_workspace(clock),
        SCHEDULE,
        prepare=lambda case, workspace: fake_prepared(
            _named(turns), fmas={Variant.LAYERCAST: 800, Variant.FMA_PEAK: 1000}
        ),
    )
    # 800 in 4 s against 1,000 in 2 s.
    assert measurement.rates == {Variant.LAYERCAST: 200.0, Variant.FMA_PEAK: 500.0}
    assert measurement.share_of_peak == 0.4
    assert measurement.speed(Variant.STOCK_FP32) is None


def test_a_case_may_bring_a_schedule_and_facts_known_afterwards():
    clock = FakeClock()
    turns = _turns(clock)
    (measurement,) = run(
        [fake_case()],
        quiet_workspace(clock),
        SCHEDULE,
        prepare=lambda case, workspace: fake_prepared(
            _named(turns),
            schedule=Schedule(warmup_rounds=0, rounds_min=1, rounds_max=1),
            facts={"before": 1},
            after=lambda: {"turns": len(turns.order)},
        ),
    )
    assert len(measurement.times[Variant.LAYERCAST].samples) == 1
    assert measurement.facts == {"before": 1, "turns": 2}
