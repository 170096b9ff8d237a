"""Problems of the bundled model: multi-step arithmetic stories, each with an exact answer.

A problem is drawn from a seed and nothing else, so a split is a list of integers. The two
splits cannot meet: a story's *skeleton* (its operations and numbers, without names or wording)
is hashed, and the hash alone says to which split it may belong.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "test"]
Kind = Literal["add", "groups", "sub", "double", "triple", "share"]

TEST_SHARE = 8
"""One skeleton in this many is kept for the test split."""

NAMES = (
    ("Mia", "She"), ("Ben", "He"), ("Ada", "She"), ("Leo", "He"), ("Zoe", "She"), ("Sam", "He"),
    ("Ivy", "She"), ("Max", "He"), ("Eva", "She"), ("Tom", "He"), ("Lin", "She"), ("Raj", "He"),
)  # fmt: skip
ITEMS = (
    "stamps", "shells", "coins", "cards", "beads", "apples", "books", "pens", "stones", "tickets",
    "photos", "buttons",
)  # fmt: skip
BOXES = ("bags", "boxes", "jars", "packs")


@dataclass(frozen=True)
class Step:
    """One event of a story: what happens to the running count.

    `a` is the number the event names (added, removed, groups, or shares); `b` is the size of a
    group and 0 elsewhere; `before` and `after` are the running counts.
    """

    kind: Kind
    a: int
    b: int
    before: int
    after: int


@dataclass(frozen=True)
class Story:
    """A problem with everything that a worked answer needs."""

    name: str
    pronoun: str
    item: str
    box: str
    start: int
    steps: tuple[Step, ...]
    question: str

    @property
    def answer(self) -> int:
        """The running count after the last event."""
        return self.steps[-1].after

    @property
    def skeleton(self) -> str:
        """Operations and numbers alone, e.g. ``"37 add:25 sub:14 double"``."""
        parts = [str(self.start)]
        for step in self.steps:
            numbers = [n for n in (step.a, step.b) if n]
            parts.append(":".join([step.kind, *map(str, numbers)]))
        return " ".join(parts)


@dataclass(frozen=True)
class Problem:
    """A question of the bundled task and its expected answer, a decimal integer."""

    id: str
    question: str
    answer: str


def split_of(skeleton: str) -> Split:
    """Say which split may hold a skeleton: a function of its SHA-256 alone."""
    digest = hashlib.sha256(skeleton.encode()).digest()
    return "test" if digest[0] % TEST_SHARE == 0 else "train"


def stories(split: Split) -> Iterator[Story]:
    """Yield the endless, fixed sequence of stories of a split; no skeleton is in both splits."""
    rng = random.Random(f"layercast testbed {split} 1")
    while True:
        story = _draw(rng)
        if split_of(story.skeleton) == split:
            yield story


def problems(split: Split = "test", count: int = 64) -> list[Problem]:
    """Return the first `count` problems of a split; the test split holds no skeleton twice."""
    found: list[Problem] = []
    seen: set[str] = set()
    for story in stories(split):
        if len(found) >= count:
            break
        if story.skeleton in seen:
            continue
        seen.add(story.skeleton)
        found.append(Problem(f"{split}-{len(found):04d}", story.question, str(story.answer)))
    return found


def _draw(rng: random.Random) -> Story:
    name, pronoun = rng.choice(NAMES)
    item, box = rng.choice(ITEMS), rng.choice(BOXES)
    start = rng.randint(12, 80)
    steps: list[Step] = []
    count = start
    for _ in range(rng.randint(4, 6)):
        step = _draw_step(rng, count)
        steps.append(step)
        count = step.after
    question = _tell(rng, name, pronoun, item, box, start, steps)
    return Story(name, pronoun, item, box, start, tuple(steps), question)


def _draw_step(rng: random.Random, count: int) -> Step:
    kinds: list[Kind] = ["add", "add", "groups"]
    if count >= 20:
        kinds += ["sub", "sub"]
    if count <= 150:
        kinds += ["double", "triple"]
    divisors = [d for d in range(2, 7) if count % d == 0 and count // d >= 10]
    if divisors:
        kinds += ["share", "share"]
    if count > 600:
        kinds = ["sub", "sub", "share"] if divisors else ["sub", "sub"]
    kind = rng.choice(kinds)
    if kind == "add":
        a = rng.randint(11, 99)
        return Step(kind, a, 0, count, count + a)
    if kind == "sub":
        a = rng.randint(3, min(99, count - 8))
        return Step(kind, a, 0, count, count - a)
    if kind == "groups":
        a, b = rng.randint(2, 9), rng.randint(3, 19)
        return Step(kind, a, b, count, count + a * b)
    if kind == "share":
        a = rng.choice(divisors)
        return Step(kind, a, 0, count, count // a)
    factor = 2 if kind == "double" else 3
    return Step(kind, factor, 0, count, count * factor)


def _tell(
    rng: random.Random, name: str, pronoun: str, item: str, box: str, start: int, steps: list[Step]
) -> str:
    lines = [rng.choice((f"{name} has {start} {item}.", f"{name} starts with {start} {item}."))]
    for step in steps:
        lines.append(_event(rng, pronoun, item, box, step))
    lines.append(
        rng.choice(
            (
                f"How many {item} does {name} have now?",
                f"How many {item} does {name} have in the end?",
            )
        )
    )
    return " ".join(lines)


def _event(rng: random.Random, pronoun: str, item: str, box: str, step: Step) -> str:
    a = step.a
    told: dict[Kind, tuple[str, ...]] = {
        "add": (f"{pronoun} buys {a} more.", f"{pronoun} finds {a} more {item}."),
        "sub": (f"{pronoun} gives {a} away.", f"{pronoun} loses {a} of them."),
        "groups": (
            f"A friend brings {a} {box} with {step.b} {item} in each.",
            f"{pronoun} buys {a} {box} of {step.b} {item}.",
        ),
        "double": ("Then the number doubles.", f"{pronoun} then has twice as many."),
        "triple": ("Then the number triples.", f"{pronoun} then has three times as many."),
        "share": (
            f"{pronoun} shares them equally among {a} people and keeps one share.",
            f"{pronoun} splits them into {a} equal parts and keeps one part.",
        ),
    }
    return rng.choice(told[step.kind])
