"""Tasks by the name a plan uses."""

from __future__ import annotations

from collections.abc import Callable

from layercast.errors import PlanError
from layercast.tasks.bundled import BundledTask
from layercast.tasks.interface import Task

_TASKS: dict[str, Callable[[], Task]] = {"bundled": BundledTask}


def task_names() -> list[str]:
    """Return the names `load_task` knows."""
    return sorted(_TASKS)


def load_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        PlanError: there is none.
    """
    if name not in _TASKS:
        raise PlanError(
            f"load_task: `name` must be one of {', '.join(task_names())}, got {name!r}. "
            "Correct `task` in the plan."
        )
    return _TASKS[name]()
