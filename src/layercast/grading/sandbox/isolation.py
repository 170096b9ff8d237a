"""Which sandbox this machine permits, found out by running a program in it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from layercast.errors import EnvironmentSetupError, ValueRangeError
from layercast.grading.sandbox.commands import ISOLATIONS
from layercast.grading.sandbox.limits import Limits
from layercast.grading.sandbox.run import Program, Sandbox, run

NAMES = ("auto", *ISOLATIONS, "none")

_CANARY = "import json, math; print('ready')"


@dataclass(frozen=True)
class Attempt:
    """Whether one isolation works here, and if not, what it said."""

    isolation: str
    works: bool
    said: str


def attempt(isolation: str) -> Attempt:
    """Run a harmless program in an isolation."""
    if isolation in ISOLATIONS and ISOLATIONS[isolation](Limits()) is None:
        return Attempt(isolation, False, "it is not installed")
    try:
        outcome = run(Program(_CANARY), Sandbox(isolation))
    except EnvironmentSetupError as error:
        return Attempt(isolation, False, str(error))
    works = outcome.stdout.strip() == "ready"
    return Attempt(isolation, works, "" if works else outcome.last_line or str(outcome.limit))


def open_sandbox(isolation: str = "auto") -> Sandbox:
    """Return a sandbox that works on this machine.

    Args:
        isolation: ``namespaces``, made by this package; ``bubblewrap``, made by that program, with
            no bound on the number of files; ``auto``, the first of the two that works; ``none``,
            limits alone: the network, this user's files and this user's processes are then in
            reach of what is run.

    Raises:
        ValueRangeError: an unknown name.
        EnvironmentSetupError: the system permits none of what was asked for.
    """
    if isolation not in NAMES:
        raise ValueRangeError(
            f"open_sandbox: `isolation` must be one of {', '.join(NAMES)}, got {isolation!r}. "
            "Correct the name."
        )
    attempts = []
    for name in ISOLATIONS if isolation == "auto" else (isolation,):
        tried = attempt(name)
        if tried.works:
            return Sandbox(name)
        attempts.append(tried)
    said = "; ".join(f"{tried.isolation}: {tried.said}" for tried in attempts)
    install = "" if shutil.which("bwrap") else "Install bubblewrap, or "
    remedy = f"{install}permit user namespaces to this user" if isolation != "none" else "See above"
    raise EnvironmentSetupError(
        f"open_sandbox: running a model's code must be possible without network and outside this "
        f"user's files, got {said}. {remedy[:1].upper()}{remedy[1:]}, run in a container or a "
        "virtual machine that you can lose and give --code-isolation none there."
    )
