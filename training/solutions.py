"""Worked answers to the stories, with wording drawn at random among equals.

Each choice below is uniform and none depends on the numbers, so a trained model is left with many
near-ties between its best two tokens, as a large model is. That is where rounding decides.
"""

from __future__ import annotations

import random

from layercast.testbed.problems import Step, Story

OPENINGS = ("Let me work through this step by step.", "I will go through the story in order.",
            "Okay, we keep track of the count.", "We follow the events one at a time.")  # fmt: skip
ORDER = ("Next", "Then", "After that", "Now")
GIVES = ("which gives", "which makes", "so we get", "and that is")
LEAVES = ("That leaves", "So the count is", "This means there are", "So there are")
CHECKS = ("Let me check", "To be sure", "As a check")
ENDINGS = ("So the final answer is", "Therefore the answer is", "The result is",
           "So in the end the answer is")  # fmt: skip


def solve(story: Story, rng: random.Random) -> str:
    r"""Return a worked answer to `story`, ending in ``\boxed{answer}``.

    Args:
        story: The problem.
        rng: Source of the wording; the arithmetic does not depend on it.
    """
    parts = [rng.choice(OPENINGS)]
    parts.append(
        rng.choice(
            (
                f"{story.name} begins with {story.start} {story.item}.",
                f"At first there are {story.start} {story.item}.",
                f"The story starts at {story.start} {story.item}.",
            )
        )
    )
    for step in story.steps:
        parts.extend(_work(story, step, rng))
    parts.append(
        rng.choice(
            (
                f"Nothing else happens to the {story.item}.",
                f"That was the last event for {story.name}.",
                "There are no more steps.",
            )
        )
    )
    parts.append(f"{rng.choice(ENDINGS)} \\boxed{{{story.answer}}}.")
    return " ".join(parts)


def _work(story: Story, step: Step, rng: random.Random) -> list[str]:
    order, gives = rng.choice(ORDER), rng.choice(GIVES)
    said = [f"{order}, {_event(story, step, rng)}: {_sum(step, gives)}."]
    if rng.random() < 0.5:
        said.append(f"{rng.choice(LEAVES)} {step.after} {story.item}.")
    if rng.random() < 0.5:
        said.append(f"{rng.choice(CHECKS)}: {_reverse(step)}.")
    return said


def _event(story: Story, step: Step, rng: random.Random) -> str:
    pronoun, a = story.pronoun.lower(), step.a
    told = {
        "add": (f"we add {a}", f"{pronoun} gets {a} more", f"the count grows by {a}"),
        "sub": (f"we take away {a}", f"{pronoun} has {a} fewer", f"the count drops by {a}"),
        "groups": (
            f"the {a} {story.box} hold {step.b} each",
            f"we add {a} {story.box} of {step.b}",
            f"there come {a} groups of {step.b}",
        ),
        "double": ("we double it", "the count is doubled", "there are twice as many"),
        "triple": ("we triple it", "the count is tripled", "there are three times as many"),
        "share": (
            f"we divide by {a}",
            f"the count is split by {a}",
            f"one of {a} parts is kept",
        ),
    }
    return rng.choice(told[step.kind])


def _sum(step: Step, gives: str) -> str:
    if step.kind == "add":
        return f"{step.before}+{step.a}={step.after}"
    if step.kind == "sub":
        return f"{step.before}-{step.a}={step.after}"
    if step.kind == "groups":
        more = step.a * step.b
        return f"{step.a}*{step.b}={more}, {gives} {step.before}+{more}={step.after}"
    if step.kind == "share":
        return f"{step.before}/{step.a}={step.after}"
    return f"{step.before}*{step.a}={step.after}"


def _reverse(step: Step) -> str:
    if step.kind == "add":
        return f"{step.after}-{step.a}={step.before}"
    if step.kind == "sub":
        return f"{step.after}+{step.a}={step.before}"
    if step.kind == "groups":
        return f"{step.after}-{step.a * step.b}={step.before}"
    if step.kind == "share":
        return f"{step.after}*{step.a}={step.before}"
    return f"{step.after}/{step.a}={step.before}"
