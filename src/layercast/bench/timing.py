"""The order in which variants take turns, and what their times say.

Variants of a case are interleaved, so that a change of the machine's speed meets all of them. A
turn begins with a pause, in which threads of another library that still spin after its last call
give up their core, and with calls that are not timed, in which this variant's threads wake up and
find their cores again.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Clock = Callable[[], float]
Turn = Callable[[], float]
"""Computes an operation one or more times and returns the seconds each took."""

Name = TypeVar("Name", bound=Hashable)

PATIENCE = 2
"""How many times the schedule's rounds and seconds may be spent to get quiet ones."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How many turns each variant takes.

    Attributes:
        warmup_rounds: Rounds whose times are dropped.
        rounds_min: Rounds that are timed at least.
        rounds_max: Rounds that are timed at most.
        seconds: No new round begins after so long, once there are `rounds_min`.
    """

    warmup_rounds: int = 1
    rounds_min: int = 5
    rounds_max: int = 25
    seconds: float = 2.0


@dataclass(frozen=True)
class Times:
    """Seconds of one variant, a sample a round."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and third quartile of the rounds."""
        return quartiles(self.samples)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one variant is as another.

    Attributes:
        value: The other's median time / this one's.
        low: First quartile of the same ratio taken round by round.
        high: Third quartile.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Rounds(Generic[Name]):
    """What interleaving gave.

    Attributes:
        times: Of each variant, all of one length.
        kept: Numbers of the rounds that count, in the order they were run, warm-up rounds aside.
        dropped: Rounds left out because others disturbed them.
        quiet: False where that could not be helped, and disturbed rounds are among the times.
    """

    times: dict[Name, Times]
    kept: tuple[int, ...]
    dropped: int
    quiet: bool


def interleave(
    turns: Mapping[Name, Turn],
    schedule: Schedule,
    *,
    clock: Clock = time.perf_counter,
    disturbed: Callable[[], bool] = lambda: False,
) -> Rounds[Name]:
    """Let the variants take turns, round after round, every other round in reverse order.

    A round that others disturbed is dropped whole, for every variant, and made again. Where the
    machine does not become quiet within `PATIENCE` times the schedule's rounds or seconds, all
    rounds count.

    Args:
        turns: The variants.
        schedule: How many rounds.
        clock: Seconds, from any origin.
        disturbed: Whether others took the processor since it was last asked.

    Returns:
        The times of each variant.
    """
    names = list(turns)
    for _ in range(schedule.warmup_rounds):
        for name in names:
            turns[name]()
    quiet: dict[int, dict[Name, float]] = {}
    other: dict[int, dict[Name, float]] = {}
    began = clock()
    disturbed()
    for index in range(PATIENCE * schedule.rounds_max):
        order = names if index % 2 == 0 else names[::-1]
        samples = {name: turns[name]() for name in order}
        (other if disturbed() else quiet)[index] = samples
        elapsed = clock() - began
        enough = len(quiet) >= schedule.rounds_min and elapsed >= schedule.seconds
        hopeless = (
            index + 1 >= PATIENCE * schedule.rounds_min and elapsed >= PATIENCE * schedule.seconds
        )
        if enough or hopeless or len(quiet) == schedule.rounds_max:
            break
    is_quiet = len(quiet) >= schedule.rounds_min
    rounds = quiet if is_quiet else dict(sorted((quiet | other).items()))
    times = {name: Times(tuple(samples[name] for samples in rounds.values())) for name in names}
    return Rounds(times, tuple(rounds), len(other) if is_quiet else 0, is_quiet)


def speed(ours: Times, other: Times) -> Ratio:
    """Return how many times as fast `ours` is as `other`, by medians; the rounds give the range."""
    by_round = [b / a for a, b in zip(ours.samples, other.samples, strict=True)]
    low, high = quartiles(by_round)
    return Ratio(other.median / ours.median, low, high)


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """Return the first and third quartile, interpolated; of one value, that value twice."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


@dataclass(frozen=True)
class RepeatedCalls:
    """A turn of an operation: a pause, untimed calls, then as many timed as one.

    Attributes:
        call: The operation.
        calls: Timed calls of a turn, and untimed ones before them.
        clock: Seconds.
        pause: Waits before the turn.
    """

    call: Callable[[], object]
    calls: int
    clock: Clock
    pause: Callable[[], None]

    def __call__(self) -> float:
        """Take the turn."""
        call = self.call
        self.pause()
        for _ in range(self.calls):
            call()
        began = self.clock()
        for _ in range(self.calls):
            call()
        return (self.clock() - began) / self.calls


def repeated(
    call: Callable[[], object], *, turn_seconds: float, clock: Clock, pause: Callable[[], None]
) -> RepeatedCalls:
    """Make a turn that times as many calls as fill `turn_seconds`, at least one.

    Short operations need many: one call would measure the clock.
    """
    call()
    one = RepeatedCalls(call, 1, clock, pause)()
    return RepeatedCalls(call, max(1, math.ceil(turn_seconds / max(one, 1e-7))), clock, pause)
