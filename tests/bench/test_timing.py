"""Contract under test: variants take turns in order; disturbed rounds are made again."""

import pytest
from fakes import FakeClock, Turns

from layercast.bench.timing import RepeatedCalls, Schedule, Times, interleave, quartiles, speed


def _interleave(turns, clock, disturbed=lambda: False, **schedule):
    return interleave(turns.all(), Schedule(**schedule), clock=clock, disturbed=disturbed)


def test_variants_alternate_and_every_other_round_is_reversed():
    clock = FakeClock()
    turns = Turns(clock, a=[1] * 5, b=[1] * 5, c=[1] * 5)
    _interleave(turns, clock, warmup_rounds=1, rounds_min=3, rounds_max=3, seconds=0)
    assert "".join(turns.order) == "abc" + "abc" + "cba" + "abc"


def test_warm_up_is_not_among_the_times():
    clock = FakeClock()
    turns = Turns(clock, a=[9, 9, 1, 2, 3], b=[8, 8, 4, 5, 6])
    rounds = _interleave(turns, clock, warmup_rounds=2, rounds_min=3, rounds_max=3, seconds=0)
    assert rounds.times["a"].samples == (1, 2, 3)
    assert rounds.times["b"].samples == (4, 5, 6)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    # A round takes 2 s: after 4 rounds 8 s are over; never fewer than 3 rounds, never above 6.
    [(8, 4), (0, 3), (1000, 6)],
)
def test_rounds_end_by_seconds_within_their_bounds(seconds, expected):
    clock = FakeClock()
    turns = Turns(clock, a=[1] * 20, b=[1] * 20)
    rounds = _interleave(turns, clock, warmup_rounds=0, rounds_min=3, rounds_max=6, seconds=seconds)
    assert len(rounds.times["a"].samples) == len(rounds.times["b"].samples) == expected
    assert rounds.quiet


def test_a_disturbed_round_is_dropped_for_every_variant_and_made_again():
    clock = FakeClock()
    answers = iter([False, False, True, False])  # once before the first round, then after each
    turns = Turns(clock, a=[1, 50, 2], b=[3, 60, 4])
    rounds = _interleave(
        turns, clock, lambda: next(answers), warmup_rounds=0, rounds_min=2, rounds_max=2, seconds=0
    )
    assert rounds.times["a"].samples == (1, 2)
    assert rounds.times["b"].samples == (3, 4)
    assert (rounds.dropped, rounds.quiet) == (1, True)
    assert rounds.kept == (0, 2)


def test_a_machine_that_never_is_quiet_gives_all_rounds_and_says_so():
    clock = FakeClock()
    turns = Turns(clock, a=[1] * 50, b=[1] * 50)
    rounds = _interleave(
        turns, clock, lambda: True, warmup_rounds=0, rounds_min=2, rounds_max=9, seconds=4
    )
    # Patience is twice 4 s; a round takes 2 s.
    assert len(rounds.times["a"].samples) == 4
    assert (rounds.dropped, rounds.quiet) == (0, False)
    assert rounds.kept == (0, 1, 2, 3)


def test_median_and_quartiles_by_hand():
    # 1 2 3 4 10: the median is the third; quartiles interpolate at positions 1 and 3.
    times = Times((10.0, 1.0, 3.0, 2.0, 4.0))
    assert times.median == 3.0
    assert times.quartiles == (2.0, 4.0)
    assert quartiles([7.0]) == (7.0, 7.0)


def test_speed_is_the_others_median_over_ours_and_its_range_is_taken_round_by_round():
    ours, other = Times((1.0, 2.0, 4.0)), Times((4.0, 4.0, 4.0))
    ratio = speed(ours, other)
    assert ratio.value == 2.0
    # Round by round 4, 2, 1: quartiles halfway to the median.
    assert (ratio.low, ratio.high) == (1.5, 3.0)


def test_a_turn_times_its_calls_alone():
    clock = FakeClock()
    calls = []

    def call():
        calls.append(clock.now)
        clock.advance(3.0)

    turn = RepeatedCalls(call, calls=4, clock=clock, pause=lambda: clock.advance(100.0))
    # The pause and as many calls lie before the clock is read.
    assert turn() == 3.0
    assert len(calls) == 8
